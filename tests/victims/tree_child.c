/* A child process of the victim `tree`: passes the token on, answers messages, checks itself. */
#define _GNU_SOURCE
#include "tree.h"
#include "victim.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static struct child *self;
static char who[16];
static struct identity identity;
static struct parked parked;
static struct worker workers[CHILD_THREADS];
static uint64_t hops, last_token;

static int thread_count(void)
{
	return self->number == 1 ? CHILD_THREADS : 0;
}

static void pass_token(void)
{
	uint64_t token = 0;
	ssize_t n = read(self->ring_in, &token, sizeof token);

	if (n == 0)
		_exit(0);
	if (n < 0 && errno == EINTR)
		return;
	if (n != sizeof token)
		victim_lasting("%s: token of %zd bytes", who, n);
	/* Each lap is one hop for each process. */
	if (last_token && token != last_token + CHILDREN + 1)
		victim_lasting("%s: token: wanted %" PRIu64 ", found %" PRIu64, who,
			       last_token + CHILDREN + 1, token);
	last_token = token++;
	hops++;
	atomic_fetch_add(&shared->hops[self->number + 1], 1);
	if (write(self->ring_out, &token, sizeof token) != sizeof token)
		_exit(0);
}

static void check_self(void)
{
	uint64_t found = atomic_load(&shared->hops[self->number + 1]);

	identity_check(&identity, who);
	parked_check(&parked, who);
	pending_check(who);
	workers_check(workers, thread_count(), who);
	if (found != hops)
		victim_problem("%s: shared counter: wanted %" PRIu64 ", found %" PRIu64, who, hops,
			       found);
}

static void answer(struct channel *ch)
{
	struct message m;
	ssize_t n = read(ch->fd, &m, sizeof m);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		_exit(0); /* the root is gone */
	if (n != sizeof m)
		victim_lasting("%s: %s: message of %zd bytes", who, ch->name, n);
	if (m.number != ch->received + 1)
		victim_lasting("%s: %s: message: wanted %" PRIu64 ", found %" PRIu64, who, ch->name,
			       ch->received + 1, m.number);
	ch->received = m.number;
	if (m.type == CHECK)
		check_self();
	if (write(ch->fd, &m, sizeof m) != sizeof m)
		_exit(0);
}

void child_main(struct child *c)
{
	struct pollfd fds[] = {
		{ .fd = c->ring_in, .events = POLLIN },
		{ .fd = c->control.fd, .events = POLLIN },
		{ .fd = c->extra.fd, .events = POLLIN },
	};

	self = c;
	snprintf(who, sizeof who, "child %d", c->number);
	victim_child_begin();
	if (c->number == 1 && setpgid(0, 0))
		victim_die("setpgid");
	if (c->number == 2 && setsid() < 0)
		victim_die("setsid");
	parked_make(&parked, (uint64_t)c->number);
	pending_make();
	workers_start(workers, thread_count());
	identity = identity_now();
	for (;;) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents)
			pass_token();
		if (fds[1].revents)
			answer(&c->control);
		if (fds[2].revents)
			answer(&c->extra);
	}
}
