// SPDX-License-Identifier: GPL-2.0
/* A daemon: a process of its own that ends with the benchmark, and what it fetches from. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static unsigned int delay;	/* of the link, in us */

void link_set_delay(unsigned int us)
{
	delay = us;
}

unsigned int link_delay(void)
{
	return delay;
}

void link_wait(void)
{
	if (delay)
		usleep(delay);
}

void link_lock(pthread_mutex_t *lock)
{
	if (delay)
		pthread_mutex_lock(lock);
}

void link_unlock(pthread_mutex_t *lock)
{
	if (delay)
		pthread_mutex_unlock(lock);
}

void daemon_serve(void *(*serve)(void *), void *arg)
{
	pthread_t thread;

	for (int i = 1; delay && i < LINK_THREADS; i++)
		if (pthread_create(&thread, NULL, serve, arg))
			die("pthread_create");
	serve(arg);
}

pid_t daemon_start(void (*serve)(const struct image *image, int fd), const struct image *image,
		   int fd)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* A child has to be given the pages of a file's mapping again. */
		if (madvise((void *)image->data, image->size, MADV_POPULATE_READ))
			die("MADV_POPULATE_READ");
		serve(image, fd);
		_exit(0);
	}
	return pid;
}

void daemon_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
