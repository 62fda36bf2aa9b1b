// SPDX-License-Identifier: GPL-2.0
/*
 * Mount an EROFS image that is a regular file, file-backed.
 *
 * usage: mount.erofs IMAGE DIRECTORY [-o OPTIONS]
 *
 * busybox mount would put the file on a loop device by itself, which is what file-backed mounts
 * are there to avoid.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
	const char *options = NULL;

	if (argc == 5 && !strcmp(argv[3], "-o")) {
		options = argv[4];
	} else if (argc != 3) {
		fprintf(stderr, "usage: mount.erofs IMAGE DIRECTORY [-o OPTIONS]\n");
		return 2;
	}
	if (mount(argv[1], argv[2], "erofs", MS_RDONLY, options)) {
		fprintf(stderr, "mount.erofs: %s on %s: %m\n", argv[1], argv[2]);
		return 1;
	}
	return 0;
}
