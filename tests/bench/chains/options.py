"""What is to be measured, and how long: of the environment."""

CHAINS = ["direct", "haproxy-tcp", "envoy-tcp", "envoy2-tls", "envoy2-connect", "envoy3-connect", "envoy4-http",
          "tombolo2", "tombolo3", "tombolo4"]
MEASURES = ["memory", "keepalive", "connections", "paced", "stream", "streams", "names"]


class Options:
    def __init__(self, environment):
        self.rounds = _number(environment, "BENCH_ROUNDS", 3, 100)
        self.seconds = _number(environment, "BENCH_SECONDS", 4, 600)
        self.chains = _chosen(environment, "BENCH_CHAINS", CHAINS)
        self.measures = _chosen(environment, "BENCH_ONLY", MEASURES)


def _number(environment, name, usual, most):
    text = environment.get(name, str(usual))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ValueError(f"{name}={text}: a number from 1 to {most}")
    return int(text)


def _chosen(environment, name, known):
    """Those that a list with commas names; all where there is no list."""
    words = [word.strip() for word in environment.get(name, "").split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise ValueError(f"{name}: {word!r} is none of {', '.join(known)}")
    return [one for one in known if not words or one in words]
