/* Requests and responses of one size over many TCP connections.
 *
 * requests server PORT SIZE            answers until the first client has left
 * requests client PORT SIZE ADDRESS CONNECTIONS SECONDS   prints responses per second
 *
 * Each connection has one request under way at any time.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, SIZE_MAX_BYTES = 65536, TRIES = 250, TRY_US = 20000 };

static char buffer[SIZE_MAX_BYTES];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

/* Return 0 when all of a message has come, -1 when the other end has left. */
static int receive(int fd, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t count = read(fd, buffer + done, size - done);

		if (count <= 0)
			return -1;
		done += count;
	}
	return 0;
}

static void transmit(int fd, size_t size)
{
	if (write(fd, buffer, size) != (ssize_t)size)
		die("write");
}

static void without_delay(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void serve(int listener, size_t size)
{
	struct pollfd ends[CONNECTIONS_MAX + 1] = {{.fd = listener, .events = POLLIN}};
	int count = 1;

	do {
		if (poll(ends, count, -1) < 0)
			die("poll");
		for (int i = count - 1; i > 0; i--) {
			if (!ends[i].revents)
				continue;
			if (receive(ends[i].fd, size) == 0) {
				transmit(ends[i].fd, size);
				continue;
			}
			close(ends[i].fd);
			ends[i] = ends[--count];
		}
		if (ends[0].revents && count <= CONNECTIONS_MAX) {
			int fd = accept(listener, NULL, NULL);

			if (fd < 0)
				die("accept");
			without_delay(fd);
			ends[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
		}
	} while (count > 1);
}

static int connected(const struct sockaddr_in *address)
{
	for (int i = 0; i < TRIES; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0)
			die("socket");
		if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
			without_delay(fd);
			return fd;
		}
		close(fd);
		usleep(TRY_US);
	}
	die("connect");
	return -1;
}

static double rate(const struct sockaddr_in *address, size_t size, int count, double seconds)
{
	struct pollfd ends[CONNECTIONS_MAX];
	long responses = 0;
	double begun, end;

	for (int i = 0; i < count; i++)
		ends[i] = (struct pollfd){.fd = connected(address), .events = POLLIN};
	begun = now();
	end = begun + seconds;
	for (int i = 0; i < count; i++)
		transmit(ends[i].fd, size);
	while (now() < end) {
		if (poll(ends, count, 500) < 0)
			die("poll");
		for (int i = 0; i < count; i++) {
			if (!ends[i].revents)
				continue;
			if (receive(ends[i].fd, size) < 0)
				die("receive");
			responses++;
			transmit(ends[i].fd, size);
		}
	}
	return responses / (now() - begun);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	int is_server = argc == 4 && strcmp(argv[1], "server") == 0, on = 1;
	size_t size = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	if ((!is_server && argc != 7) || size == 0 || size > SIZE_MAX_BYTES)
		return 2;
	address.sin_port = htons(atoi(argv[2]));
	if (is_server) {
		int listener = socket(AF_INET, SOCK_STREAM, 0);

		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0)
			die("bind");
		if (listen(listener, CONNECTIONS_MAX) < 0)
			die("listen");
		serve(listener, size);
		return 0;
	}
	int count = atoi(argv[5]);

	if (inet_pton(AF_INET, argv[4], &address.sin_addr) != 1 || count < 1 ||
	    count > CONNECTIONS_MAX)
		return 2;
	printf("%.0f\n", rate(&address, size, count, atof(argv[6])));
	return 0;
}
