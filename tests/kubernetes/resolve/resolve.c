/* resolve NAME... prints each name's addresses as the C library's resolver gives them: one line for each, "NAME ADDRESS...". */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	int bad = 0;
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *all, *a;
		int e = getaddrinfo(argv[i], NULL, &hints, &all);
		if (e) {
			fprintf(stderr, "%s: %s\n", argv[i], gai_strerror(e));
			bad = 1;
			continue;
		}
		printf("%s", argv[i]);
		for (a = all; a; a = a->ai_next) {
			char text[INET6_ADDRSTRLEN] = "?";
			const void *at = a->ai_family == AF_INET6
				? (const void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr
				: (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr;
			inet_ntop(a->ai_family, at, text, sizeof text);
			printf(" %s", text);
		}
		printf("\n");
		freeaddrinfo(all);
	}
	return bad;
}
