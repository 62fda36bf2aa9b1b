// SPDX-License-Identifier: GPL-2.0
/*
 * A blob is replaced under its name by another version of the same size while
 * ondemandfs has pages of it: no reader gets bytes of both.
 */
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(10ULL * CF_PAGE)
#define HALF	(5ULL * CF_PAGE)

FIXTURE(replaced) {
	struct cf_env e;
};

FIXTURE_VARIANT(replaced) {
	const char *first, *second;
};

/* What the daemon says with copen; what it has is another thing each time. */
FIXTURE_VARIANT_ADD(replaced, by_another_version) { .first = "v1", .second = "v2" };
FIXTURE_VARIANT_ADD(replaced, by_one_with_a_version) { .first = NULL, .second = "v1" };
FIXTURE_VARIANT_ADD(replaced, by_one_without) { .first = "v1", .second = NULL };

FIXTURE_SETUP(replaced)
{
	if (cf_is_c())
		SKIP(return, "C knows no versions");
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(replaced)
{
	cf_env_end(&self->e);
}

/* All of it is of one version. */
static long read_all(struct cf_env *e, struct cf_blob *b)
{
	return cf_blob_serve(e, b, cf_start_pread(b->fd, 0, SIZE));
}

TEST_F_TIMEOUT(replaced, while_nobody_has_it_open, 120)
{
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "old", variant->first));
	ASSERT_EQ(0, cf_blob_serve(&self->e, &b, cf_start_pread(b.fd, 0, HALF)));
	close(b.fd);
	/* fscache gives up an unused cookie after 10 s; pages stay. */
	ASSERT_EQ(0, cf_recv(self->e.dev, &m, 40000));
	ASSERT_EQ(CF_CLOSE, m.w.opcode);
	close(b.anon);
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "new", variant->second));
	EXPECT_EQ(0, read_all(&self->e, &b));
}

TEST_F_TIMEOUT(replaced, while_it_is_open_and_the_daemon_is_away, 120)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "old", variant->first));
	ASSERT_EQ(0, cf_blob_serve(&self->e, &b, cf_start_pread(b.fd, 0, HALF)));
	cf_env_close(&self->e);
	close(b.anon);
	ASSERT_SETUP(cf_env_bind(&self->e));
	op = cf_start_pread(b.fd, HALF, 4096);
	/* Each read causes an OPEN. */
	while (cf_wait(op, 20) == -ETIMEDOUT) {
		if (cf_recv(self->e.dev, &m, 20))
			continue;
		ASSERT_EQ(CF_OPEN, m.w.opcode);
		ASSERT_EQ(0, cf_copen_version(self->e.dev, m.w.msg_id, SIZE, variant->second));
	}
	EXPECT_EQ(-EIO, cf_wait(op, 0)) TH_LOG("bytes of another version");
	EXPECT_EQ(0, cf_read_and_check("old", b.fd, 0, HALF, HALF));
}

TEST_F_TIMEOUT(replaced, by_nothing_else_than_it_was, 120)
{
	struct cf_blob b;
	struct cf_op *op;

	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "old", variant->first));
	ASSERT_EQ(0, cf_blob_serve(&self->e, &b, cf_start_pread(b.fd, 0, HALF)));
	cf_env_close(&self->e);
	close(b.anon);
	ASSERT_SETUP(cf_env_bind(&self->e));
	op = cf_start_pread(b.fd, HALF, 4096);
	snprintf(b.name, sizeof(b.name), "blob");
	ASSERT_EQ(0, cf_blob_answer_version(&self->e, &b, variant->first));
	snprintf(b.name, sizeof(b.name), "old");
	EXPECT_EQ(0, cf_blob_serve(&self->e, &b, op));
	EXPECT_EQ(0, read_all(&self->e, &b));
}

TEST_HARNESS_MAIN
