/* Measures connections over TCP: turns of one byte on one, new ones with a turn each, and bulk.
 * The server answers a read of one byte by that byte, and swallows all others.
 *
 *   connections PORT                              serve
 *   connections ADDRESS PORT turns|new|bulk SECONDS   ask; print turns or connections a second, or Gbit/s
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char bytes[1 << 17];

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

/* A lost reset, or a lost answer, ends after some seconds. */
static void limit(int made) {
  struct timeval most = {8, 0};
  int one = 1;
  setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

static int dial(struct sockaddr_in *to) {
  int made = socket(AF_INET, SOCK_STREAM, 0);
  limit(made);
  if (connect(made, (void *)to, sizeof *to)) { perror("connect"); exit(1); }
  return made;
}

static void turn(int made) {
  char byte = 'x';
  if (write(made, &byte, 1) != 1 || read(made, &byte, 1) != 1) { perror("turn"); exit(1); }
}

int main(int count, char **words) {
  if (count == 2) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    int one = 1, all = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(all, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(all, (void *)&at, sizeof at) || listen(all, 4096)) { perror("listen"); return 1; }
    for (;;) {
      int made = accept(all, 0, 0);
      ssize_t size;
      limit(made);
      while ((size = read(made, bytes, sizeof bytes)) > 0)
        if (size == 1 && write(made, bytes, 1) != 1) break;
      close(made);
    }
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
  struct linger reset = {1, 0};
  inet_aton(words[1], &to.sin_addr);
  double begun = now(), end = begun + atof(words[4]);
  long done = 0;
  if (!strcmp(words[3], "turns")) {
    int made = dial(&to);
    for (; now() < end; done++) turn(made);
  } else if (!strcmp(words[3], "bulk")) {
    int made = dial(&to);
    while (now() < end) {
      ssize_t size = write(made, bytes, sizeof bytes);
      if (size < 0) { perror("bulk"); return 1; }
      done += size;
    }
    printf("%.3f\n", done * 8 / 1e9 / (now() - begun));
    return 0;
  } else {
    for (; now() < end; done++) {
      int made = dial(&to);
      turn(made);
      setsockopt(made, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      close(made);
    }
  }
  printf("%.0f\n", done / (now() - begun));
}
