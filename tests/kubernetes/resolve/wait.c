/* Keeps a pod running until SIGTERM, so that the programs beside it can be run there. */
#include <signal.h>
#include <unistd.h>

static void end(int s) { (void)s; _exit(0); }

int main(void)
{
	signal(SIGTERM, end);
	signal(SIGINT, end);
	for (;;) pause();
}
