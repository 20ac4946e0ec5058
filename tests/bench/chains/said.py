"""What wrk and dnsperf say of a run."""

import re

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def ms(text):
    """`250.00us`, `5.80ms`, `1.20s`, `2.00m`, in milliseconds."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text.strip()).groups()
    return float(number) * _UNITS[unit]


def wrk(text):
    """What `wrk --latency` printed."""
    def of(pattern):
        found = re.search(pattern, text, re.MULTILINE)
        if not found:
            raise ValueError(f"wrk did not say {pattern}:\n{text}")
        return found
    total = of(r"^\s*(\d+) requests in ([\d.]+\w+),")
    requests = int(total[1])
    failed = 0
    if errors := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text):
        failed += sum(map(int, errors.groups()))
    if others := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        failed += int(others[1])
    if requests == 0:
        raise ValueError(f"no request was answered:\n{text}")
    return {"requests": requests, "rate": requests / ms(total[2]) * 1e3, "failed": failed,
            "p50": ms(of(r"^\s*50%\s+(\S+)")[1]), "p99": ms(of(r"^\s*99%\s+(\S+)")[1])}


def dnsperf(text):
    """What dnsperf printed; whatever is no good answer failed."""
    def of(pattern):
        found = re.search(pattern, text)
        if not found:
            raise ValueError(f"dnsperf did not say {pattern}:\n{text}")
        return float(found[1])
    answered = of(r"Queries completed:\s+(\d+)")
    if answered == 0:
        raise ValueError(f"nothing was answered:\n{text}")
    good = re.search(r"NOERROR (\d+)", text)
    return {"answered": answered, "failed": of(r"Queries sent:\s+(\d+)") - (float(good[1]) if good else 0),
            "rate": of(r"Queries per second:\s+([\d.]+)")}
