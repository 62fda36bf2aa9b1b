// SPDX-License-Identifier: GPL-2.0
/* The floors: EROFS on a file that is all there. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <limits.h>
#include <unistd.h>

#include "bench.h"

#define FILE_PATH	"/cache/image"

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	int fd = open(FILE_PATH, O_RDWR | O_CREAT | O_TRUNC, 0600);

	(void)arm;
	(void)round;
	if (fd < 0)
		die(FILE_PATH);
	for (size_t off = 0; off < image->size;) {
		ssize_t n = write(fd, image->data + off, image->size - off);

		if (n <= 0)
			die("write of the image");
		off += n;
	}
	fsync(fd);
	close(fd);
	snprintf(path, PATH_MAX, FILE_PATH);
}

static void stop(void)
{
	unlink(FILE_PATH);
}

const struct arm arm_file = {
	.name = "file", .start = start, .stop = stop, .local = true,
};

const struct arm arm_file_direct = {
	.name = "file_direct", .start = start, .stop = stop, .local = true,
	.mount_options = "directio",
};
