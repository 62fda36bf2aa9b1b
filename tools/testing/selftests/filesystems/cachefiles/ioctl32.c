// SPDX-License-Identifier: GPL-2.0
/*
 * ioctl32 FD ID: tell CacheFiles that READ ID has been answered, as a 32-bit program
 * does.  Exits with the error number, or 0.  Needs no library, because there may be
 * none for 32 bits.
 */
static long call(long number, long a, long b, long c)
{
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory");
	return ret;
}

static long number(const char *text)
{
	long n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + *text++ - '0';
	return n;
}

__attribute__((noreturn, used)) void start(long *stack)
{
	char **argv = (char **)(stack + 1);
	long ret = -22;

	if (stack[0] == 3)
		/* ioctl(fd, CACHEFILES_IOC_READ_COMPLETE, id) */
		ret = call(54, number(argv[1]), 0x40049801, number(argv[2]));
	for (;;)
		call(1, -ret, 0, 0);
}

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %esp, %eax\n"
	"	and $-16, %esp\n"
	"	sub $12, %esp\n"
	"	push %eax\n"
	"	call start\n");
