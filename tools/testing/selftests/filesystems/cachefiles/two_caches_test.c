// SPDX-License-Identifier: GPL-2.0
/*
 * Two daemons at once: a cache for network file systems, and one that is filled on demand.
 * Each has a directory and a tag of its own, and neither gets what is the other's.
 */
#include <sys/mount.h>
#include <sys/stat.h>

#include "testfs.h"
#include "kselftest_harness.h"

#define BLOB	(64 << 10)
#define SIZE	(300 << 10)

FIXTURE(two) {
	struct tf t;		/* classic */
	struct cf_env o;	/* on demand */
};

FIXTURE_SETUP(two)
{
	struct cf_env *o = &self->o;

	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_init(&self->t));
	*o = self->t.e;
	snprintf(o->dir, sizeof(o->dir), "%s/d", o->base);
	snprintf(o->mnt, sizeof(o->mnt), "%s/n", o->base);
	snprintf(o->tag, sizeof(o->tag), "two.%d", getpid());
	ASSERT_EQ(0, mkdir(o->dir, 0755));
	ASSERT_EQ(0, mkdir(o->mnt, 0755));
}

FIXTURE_TEARDOWN(two)
{
	umount2(self->o.mnt, MNT_DETACH);
	cf_env_close(&self->o);
	tf_end(&self->t);
}

/* A client that names no cache. */
static int mount_unnamed(struct tf *t)
{
	snprintf(t->options, sizeof(t->options), "server=%d,key=%s,aux=8,style=nfs", t->server,
		 t->key);
	t->e.why = "mounting the client";
	if (mount("none", t->e.mnt, "cachefiles_testfs", 0, t->options))
		return -errno;
	t->e.mounted = true;
	return 0;
}

/* Whether what a client has read once is in the cache. */
static long is_cached(struct tf *t)
{
	long err = tf_file(t, "file", SIZE, 1), before;

	err = err ?: tf_fill(t, "file");
	err = err ?: tf_remount(t);
	if (err)
		return err;
	before = tf_count(t, "read-bytes");
	err = tf_same(t, "file");
	return err ?: tf_count(t, "read-bytes") - before;
}

static long is_served(struct cf_env *o)
{
	static int number;
	struct cf_blob b;
	char name[16];
	long err;

	/* One that is not in the cache yet. */
	snprintf(name, sizeof(name), "blob%d", number++);
	err = cf_blob_open(o, &b, name, BLOB);
	err = err ?: cf_blob_fetch(o, &b, 0);
	err = err ?: cf_blob_fetch(o, &b, BLOB / 2);
	if (b.fd >= 0)
		close(b.fd);
	if (b.anon >= 0)
		close(b.anon);
	return err;
}

/* Whether there is a second daemon: C has the device open once at a time. */
static bool is_second(struct __test_metadata *_metadata, long err)
{
	long expected = cf_intended("second-daemon");

	EXPECT_EQ(expected, err);
	return !expected && !err;
}

TEST_F_TIMEOUT(two, network_first, 60)
{
	ASSERT_SETUP_T(tf_bind(&self->t, NULL));
	if (!is_second(_metadata, cf_env_bind(&self->o)))
		return;
	ASSERT_EQ(0, mount_unnamed(&self->t));
	ASSERT_EQ(0, cf_env_mount(&self->o));
	EXPECT_EQ(0, is_cached(&self->t));
	EXPECT_EQ(0, is_served(&self->o));
}

TEST_F_TIMEOUT(two, ondemand_first, 60)
{
	ASSERT_EQ(0, cf_env_bind(&self->o));
	ASSERT_EQ(0, cf_env_mount(&self->o));
	if (!is_second(_metadata, tf_bind(&self->t, NULL)))
		return;
	ASSERT_EQ(0, mount_unnamed(&self->t));
	EXPECT_EQ(0, is_cached(&self->t));
	EXPECT_EQ(0, is_served(&self->o));
}

TEST_F_TIMEOUT(two, client_before_both, 60)
{
	ASSERT_EQ(0, mount_unnamed(&self->t));
	ASSERT_EQ(0, cf_env_bind(&self->o));
	if (!is_second(_metadata, tf_bind(&self->t, NULL)))
		return;
	EXPECT_EQ(0, is_cached(&self->t));
}

TEST_F_TIMEOUT(two, client_between_both, 60)
{
	ASSERT_EQ(0, cf_env_bind(&self->o));
	ASSERT_EQ(0, cf_env_mount(&self->o));
	ASSERT_EQ(0, mount_unnamed(&self->t));
	if (!is_second(_metadata, tf_bind(&self->t, NULL)))
		return;
	EXPECT_EQ(0, is_cached(&self->t));
	EXPECT_EQ(0, is_served(&self->o));
}

TEST_F_TIMEOUT(two, either_may_go_and_come_again, 120)
{
	int i;

	ASSERT_EQ(0, cf_env_bind(&self->o));
	if (!is_second(_metadata, tf_bind(&self->t, NULL)))
		return;
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, mount_unnamed(&self->t));
		ASSERT_EQ(0, cf_env_mount(&self->o));
		EXPECT_EQ(0, is_cached(&self->t));
		EXPECT_EQ(0, is_served(&self->o));
		ASSERT_EQ(0, tf_umount(&self->t));
		ASSERT_EQ(0, cf_env_umount(&self->o));
		if (i % 2) {
			cf_env_close(&self->o);
			ASSERT_EQ(0, cf_env_bind(&self->o));
		} else {
			cf_env_close(&self->t.e);
			ASSERT_EQ(0, tf_bind(&self->t, NULL));
		}
	}
}

TEST_F_TIMEOUT(two, one_goes_and_the_other_stays, 60)
{
	ASSERT_SETUP_T(tf_bind(&self->t, NULL));
	if (!is_second(_metadata, cf_env_bind(&self->o)))
		return;
	ASSERT_EQ(0, cf_env_mount(&self->o));
	cf_env_close(&self->t.e);
	EXPECT_EQ(0, is_served(&self->o));
}

/* A daemon that is started a second time is told at bind. */
TEST_F_TIMEOUT(two, directories_and_tags_are_taken_once, 60)
{
	struct cf_env *o = &self->o;
	struct tf *t = &self->t;
	int dev;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	dev = cf_device_open();
	if (!is_second(_metadata, dev < 0 ? dev : 0))
		return;
	ASSERT_EQ(0, cf_cmd(dev, "dir %s", o->dir));
	ASSERT_EQ(0, cf_cmd(dev, "tag %s", t->e.tag));
	EXPECT_EQ(-EBUSY, cf_cmd(dev, "bind"));
	EXPECT_EQ(-EBUSY, cf_cmd(dev, "bind ondemand"));
	ASSERT_EQ(0, close(dev));

	dev = cf_device_open();
	ASSERT_GE(dev, 0);
	ASSERT_EQ(0, cf_cmd(dev, "dir %s", t->e.dir));
	ASSERT_EQ(0, cf_cmd(dev, "tag %s", o->tag));
	EXPECT_EQ(-EBUSY, cf_cmd(dev, "bind"));
	EXPECT_EQ(-EBUSY, cf_cmd(dev, "bind ondemand"));
	ASSERT_EQ(0, close(dev));

	/* The cache that is there is none the worse. */
	ASSERT_EQ(0, mount_unnamed(t));
	EXPECT_EQ(0, is_cached(t));
}

TEST_HARNESS_MAIN
