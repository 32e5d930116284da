/* The records that echo_client and echo_server exchange: all of a record follows from its header. */
#ifndef ECHO_H
#define ECHO_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "victim.h"

enum { ECHO_MAGIC = 0x6f686365, ECHO_PAYLOAD = 4096 };

struct record {
	uint32_t magic;
	uint32_t connection;
	uint64_t number; /* 0, 1, 2, ... on each connection */
	uint32_t length; /* of the payload */
	uint32_t unused;
	unsigned char payload[ECHO_PAYLOAD];
};

enum { ECHO_HEADER = sizeof(struct record) - ECHO_PAYLOAD };

static inline uint64_t record_key(uint32_t connection, uint64_t number)
{
	return victim_mix(connection, number);
}

static inline uint32_t record_length(uint32_t connection, uint64_t number)
{
	return record_key(connection, number) % (ECHO_PAYLOAD + 1);
}

static inline void record_make(struct record *r, uint32_t connection, uint64_t number)
{
	memset(r, 0, ECHO_HEADER);
	r->magic = ECHO_MAGIC;
	r->connection = connection;
	r->number = number;
	r->length = record_length(connection, number);
	victim_fill(r->payload, r->length, record_key(connection, number));
}

/* HOST:PORT or [HOST]:PORT to an address; dies when there is none. */
socklen_t echo_address(const char *text, struct sockaddr_storage *to);

/* Bytes of a stream as they arrive, checked as the records of one connection. */
struct inbox {
	const char *who;
	uint32_t connection;
	bool known; /* the number of the connection */
	uint64_t next; /* the record that must come */
	uint64_t bytes;
	size_t have;
	struct record record;
};
/* Takes up to one record of the bytes: how many were used, or -1 after something wrong, which was
 * reported; *whole tells that they completed a record. */
long inbox_take(struct inbox *in, const unsigned char *bytes, size_t length, bool *whole);

#endif
