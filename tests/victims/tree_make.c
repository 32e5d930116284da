/* Making the ring of pipes and the child processes of the victim `tree`. */
#define _GNU_SOURCE
#include "tree.h"
#include "victim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct child children[CHILDREN];
int ring_pipes[CHILDREN + 1][2];

void ring_make(void)
{
	for (int i = 0; i <= CHILDREN; i++)
		if (pipe2(ring_pipes[i], O_CLOEXEC))
			victim_die("pipe");
}

/* A child keeps its own ends only: so it sees when the root is gone. */
static void close_others(const struct child *c)
{
	for (int i = 0; i <= CHILDREN; i++) {
		if (i != c->number)
			close(ring_pipes[i][0]);
		if (i != c->number + 1)
			close(ring_pipes[i][1]);
	}
	for (int i = 0; i <= c->number; i++) {
		close(children[i].control.fd);
		if (children[i].extra.fd >= 0)
			close(children[i].extra.fd);
	}
	listener_close();
}

static void make_pair(struct channel *ch, int type, int *other)
{
	int fds[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds))
		victim_die("socketpair");
	ch->fd = fds[0];
	*other = fds[1];
}

void child_start(struct child *c)
{
	static const char *const names[] = { "control_0", "control_1", "control_2" };
	int control, extra = -1;

	make_pair(&c->control, SOCK_STREAM, &control);
	c->control.name = names[c->number];
	c->extra.fd = -1;
	if (c->number == 0) {
		c->extra.name = "connection_0";
		c->extra.fd = listener_connect(&extra);
	} else if (c->number == 1) {
		c->extra.name = "datagram_1";
		make_pair(&c->extra, SOCK_DGRAM, &extra);
	}
	c->ring_in = ring_pipes[c->number][0];
	c->ring_out = ring_pipes[c->number + 1][1];
	c->pid = fork();
	if (c->pid < 0)
		victim_die("fork");
	if (!c->pid) {
		close_others(c);
		c->control.fd = control;
		c->extra.fd = extra;
		child_main(c);
	}
	close(control);
	if (extra >= 0)
		close(extra);
}

/* The root keeps all ends for reading, to see at a check what is in the pipes. */
void ring_close_others(void)
{
	for (int i = 0; i < CHILDREN; i++)
		close(ring_pipes[i + 1][1]);
}
