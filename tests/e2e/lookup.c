/* Look names up by the C library's own resolver, as most programs do: one answer a line. */
#include <netdb.h>
#include <stdio.h>

int main(int count, char **words)
{
	for (int at = 1; at < count; at++) {
		struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
		struct addrinfo *found;
		char shown[NI_MAXHOST];
		int error = getaddrinfo(words[at], NULL, &wanted, &found);
		if (error) {
			printf("%s: %s\n", words[at], gai_strerror(error));
			continue;
		}
		for (struct addrinfo *each = found; each; each = each->ai_next) {
			getnameinfo(each->ai_addr, each->ai_addrlen, shown, sizeof shown, NULL, 0,
				    NI_NUMERICHOST);
			printf("%s\n", shown);
		}
		freeaddrinfo(found);
	}
	return 0;
}
