"""What a request goes through: from the caller's namespace to an address, by some processes."""

import client
from process import busy, resident, until, used


class Chain:
    def __init__(self, name, namespace, to, proxies):
        self.name, self.namespace, self.to, self.proxies = name, namespace, to, proxies

    def answers(self):
        """Waits until it does."""
        until(f"{self.name} answers", lambda: client.inside(self.namespace, lambda: client.Client(self.to).get("/")) == 1024)

    def used(self):
        """Seconds of processor time that its proxies took so far, and all of the machine."""
        return sum(used(pid) for _, pid in self.proxies), busy()

    def memory(self, what="VmRSS"):
        """Resident memory of each, in MiB."""
        return {role: resident(pid, what) for role, pid in self.proxies}
