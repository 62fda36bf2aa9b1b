// SPDX-License-Identifier: GPL-2.0
/*
 * Directories that "bind" refuses, and with what error.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

FIXTURE(refuse) {
	struct cf_env e;
};

FIXTURE_SETUP(refuse)
{
	ASSERT_SETUP(cf_env_init(&self->e));
}

FIXTURE_TEARDOWN(refuse)
{
	cf_env_end(&self->e);
}

/* "chattr +F": 0 or -errno. */
static int fold_case(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_CLOEXEC), flags, err = 0;

	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return -errno;
	flags |= FS_CASEFOLD_FL;
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags))
		err = -errno;
	close(fd);
	return err;
}

/* Make a directory for a cache, itself or what is to be below it as "chattr +F" has it. */
static int bind_folded(struct cf_env *e, const char *below)
{
	char path[PATH_MAX];
	int err;

	snprintf(path, sizeof(path), "%s/sub", e->dir);
	if (mkdir(path, 0700))
		return -errno;
	strcpy(e->dir, path);
	if (below) {
		snprintf(path, sizeof(path), "%s/%s", e->dir, below);
		if (mkdir(path, 0700))
			return -errno;
	}
	err = fold_case(path);
	return err ? -EBADE : cf_env_bind(e);
}

#define NO_FOLDING "no image of a file system that folds case, or CONFIG_UNICODE is not set"

static int mount_folding(struct cf_env *e)
{
	int err = cf_mount_image(e, "ext4", "fs_casefold.img.gz");

	if (err && access("/sys/fs/ext4/features/casefold", F_OK))
		return -ENOENT;
	return err;
}

TEST_F_TIMEOUT(refuse, directory_that_folds_case, 60)
{
	int err = mount_folding(&self->e);

	if (err == -ENOENT)
		SKIP(return, NO_FOLDING);
	ASSERT_EQ(0, err);
	EXPECT_EQ(cf_intended("cache-folds-case"), bind_folded(&self->e, NULL));
}

TEST_F_TIMEOUT(refuse, directory_with_one_that_folds_case, 60)
{
	int err = mount_folding(&self->e);

	if (err == -ENOENT)
		SKIP(return, NO_FOLDING);
	ASSERT_EQ(0, err);
	EXPECT_EQ(cf_intended("cache-folds-case"), bind_folded(&self->e, "cache"));
}

/* The file system may, if the directory does not. */
TEST_F_TIMEOUT(refuse, file_system_that_can_fold_case_is_fine, 60)
{
	int err = mount_folding(&self->e);

	if (err == -ENOENT)
		SKIP(return, NO_FOLDING);
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, cf_env_bind(&self->e));
}

/* Files of an overlayfs do not tell of errors in writing to what is below. */
TEST_F_TIMEOUT(refuse, overlayfs, 60)
{
	char lower[128], upper[128], work[128], data[512];

	snprintf(lower, sizeof(lower), "%s/lower", self->e.base);
	snprintf(upper, sizeof(upper), "%s/upper", self->e.base);
	snprintf(work, sizeof(work), "%s/work", self->e.base);
	ASSERT_EQ(0, mkdir(lower, 0700) | mkdir(upper, 0700) | mkdir(work, 0700));
	cf_modprobe("overlay");
	snprintf(data, sizeof(data), "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	if (mount("overlay", self->e.dir, "overlay", 0, data) && errno == ENODEV)
		SKIP(return, "no overlayfs");
	EXPECT_EQ(cf_intended("cache-on-overlayfs"), cf_env_bind(&self->e));
}

TEST_F_TIMEOUT(refuse, tmpfs, 60)
{
	ASSERT_EQ(0, mount("none", self->e.dir, "tmpfs", 0, NULL));
	EXPECT_EQ(-EOPNOTSUPP, cf_env_bind(&self->e));
}

TEST_HARNESS_MAIN
