// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/fs/netfs/stats, which counts what all caches do.
 */
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(1024 * 1024ULL)

FIXTURE(stats) {
	struct cf_env e;
	struct cf_blob b;
};

FIXTURE_SETUP(stats)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	if (access(CF_STATS, R_OK))
		SKIP(return, "a kernel without CONFIG_FSCACHE_STATS");
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "x", SIZE));
	cf_no_readahead(self->b.fd);
}

FIXTURE_TEARDOWN(stats)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(stats, count_what_is_fetched, 60)
{
	long rd = cf_stats("IO", " rd="), wr = cf_stats("IO", " wr=");

	ASSERT_GE(rd, 0);
	ASSERT_GE(wr, 0);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &self->b, 0));
	EXPECT_GT(cf_stats("IO", " rd="), rd);
	EXPECT_GT(cf_stats("IO", " wr="), wr);
}

TEST_F_TIMEOUT(stats, count_what_is_there, 60)
{
	long rd, wr;

	ASSERT_EQ(0, cf_blob_fetch(&self->e, &self->b, 0));
	posix_fadvise(self->b.fd, 0, 0, POSIX_FADV_DONTNEED);
	rd = cf_stats("IO", " rd=");
	wr = cf_stats("IO", " wr=");
	ASSERT_EQ(0, cf_read_and_check("x", self->b.fd, 0, 4096, 4096));
	EXPECT_EQ(rd + 1, cf_stats("IO", " rd="));
	EXPECT_EQ(wr, cf_stats("IO", " wr="));
}

TEST_F_TIMEOUT(stats, count_volumes_and_cookies, 60)
{
	long cookies = cf_stats("Cookies", " n="), volumes = cf_stats("Cookies", " v=");
	struct cf_blob other;

	ASSERT_EQ(0, cf_blob_open(&self->e, &other, "y", SIZE));
	EXPECT_EQ(cookies + 1, cf_stats("Cookies", " n="));
	EXPECT_EQ(volumes, cf_stats("Cookies", " v="));
	EXPECT_GT(cf_stats("Acquire", " ok="), 0);
}

TEST_HARNESS_MAIN
