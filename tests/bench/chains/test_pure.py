"""What is pure is tested: python3 -m unittest discover -s tests/bench/chains"""

import unittest

import client
import dns
import process
import report
import said
from book import Book, percentile, short, spread
from options import CHAINS, MEASURES, Options
from targets import Of, targets

WRK = """Running 4s test @ http://10.88.0.3:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   635.91us    0.89ms  12.92ms   93.69%
    Req/Sec    56.20k     8.07k   62.00k    86.67%
  Latency Distribution
     50%  250.00us
     75%  491.00us
     90%  700.00us
     99%    5.80ms
  448000 requests in 4.00s, 530.12MB read
"""
DNSPERF = """Statistics:

  Queries sent:         1045231
  Queries completed:    1045220 (100.00%)
  Queries lost:         11 (0.00%)

  Response codes:       NXDOMAIN 20 (0.00%), NOERROR 1045200 (100.00%)
  Run time (s):         4.000310
  Queries per second:   261284.750432
"""


class Said(unittest.TestCase):
    def test_wrk(self):
        load = said.wrk(WRK)
        self.assertEqual((load["requests"], load["rate"], load["failed"]), (448000, 112000, 0))
        self.assertEqual((load["p50"], load["p99"]), (0.25, 5.8))
        bad = WRK + "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 50\n"
        self.assertEqual(said.wrk(bad)["failed"], 60)
        for none in ("unable to connect to 10.88.0.3:8080 Connection refused", WRK.replace("448000", "0")):
            self.assertRaises(ValueError, said.wrk, none)

    def test_times(self):
        self.assertEqual([said.ms(text) for text in ("1.50us", "2.00ms", "3.00s", "1.50m")], [0.0015, 2, 3000, 90000])

    def test_dnsperf(self):
        self.assertEqual(said.dnsperf(DNSPERF), {"answered": 1045220, "failed": 31, "rate": 261284.750432})
        self.assertRaises(ValueError, said.dnsperf, "Error: unable to open")

    def test_http(self):
        good = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 1024\r\n\r\nxxx"
        self.assertEqual(client.head(good), (len(good) - 3, 1024))
        self.assertIsNone(client.head(good[:40]))
        for bad in (b"HTTP/1.1 503 no\r\ncontent-length: 2\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
            self.assertRaises(RuntimeError, client.head, bad)

    def test_dns(self):
        question = dns.question("a.bc")
        self.assertEqual(question[12:], b"\x01a\x02bc\x00\x00\x01\x00\x01")
        answer = question[:7] + b"\x01" + question[8:] + b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\xf0\0\0\x07"
        self.assertEqual(dns.address(question, answer), "240.0.0.7")
        self.assertIsNone(dns.address(question, question))

    def test_proc(self):
        self.assertEqual(process.used_s("4321 (a (b) c) S 1 4321 4321 0 -1 4194560 1 2 3 4 150 50 7 8 20 0"), 200 / process._TICKS)
        self.assertEqual(process.busy_s("cpu  100 10 90 5000 40 0 100 7 0 0\ncpu0 1 1"), 300 / process._TICKS)
        status = "Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t    2560 kB\nRssAnon:\t    1024 kB\n"
        self.assertEqual((process.resident_mib(status), process.resident_mib(status, "RssAnon")), (2.5, 1))


class Figures(unittest.TestCase):
    def test_percentiles(self):
        hundred = list(range(1, 101))
        self.assertEqual([percentile(hundred, part) for part in (0.5, 0.99, 0.999, 1)], [50, 99, 100, 100])
        self.assertEqual((percentile([], 0.5), percentile([7], 0.01)), (0, 7))

    def test_numbers(self):
        found = [short(value) for value in (1234567, 999.6, 999.4, 12.34, 1, 0, -0.5, -1000, 0.01234)]
        self.assertEqual(found, ["1,234,567", "1,000", "999", "12.3", "1", "0", "-0.5", "-1,000", "0.0123"])
        self.assertEqual((spread([12345, 0.01234, 3]), spread([1.5])), ("3 (0.0123-12,345)", "1.5"))

    def test_tables(self):
        book = Book()
        for row, rates in (("direct", (200000, 100000, 150000)), ("tombolo2", (75000, 60000, 90000))):
            for rate in rates:
                book.note("keepalive", row, {"rate": rate, "cpu": 12})
        book.note("keepalive", "envoy2-connect", {"cpu": 18})
        self.assertEqual(report.figures(book), """
### Keep-alive, 1 KiB, 64 connections

|  | per s | proxy CPU µs each |
| --- | --- | --- |
| direct | 150,000 (100,000-200,000) | 12 |
| tombolo2 | 75,000 (60,000-90,000) ×0.5 | 12 |
| envoy2-connect | - | 18 |
""")
        self.assertEqual(report.verdicts(book, targets()[:2]), """\
| what | beside | target | ratio, or figure |  | ours | theirs |
| --- | --- | --- | --- | --- | --- | --- |
| pair: proxy CPU of a request | envoy2-connect | ≤ 0.7 | 0.667 | met | 12 | 18 |
| chain of three: proxy CPU of a request | envoy3-connect | ≤ 0.6 | - | not measured | - | - |
""")


    def test_a_busy_machine_is_said(self):
        self.assertNotIn("trusted", report._besides((0.02, 0.1)))
        self.assertIn("not to be trusted", report._besides((0.02, 0.5)))


class Targets(unittest.TestCase):
    def book(self, measure, column, rows):
        book = Book()
        for row, values in rows.items():
            for value in values:
                book.note(measure, row, {column: value})
        return book

    def test_the_ratio_of_the_medians_decides(self):
        first = targets()[0]
        ratios = first.ratios(self.book("keepalive", "cpu", {"tombolo2": (10, 14, 20), "envoy2-connect": (20, 20, 20)}))
        self.assertEqual((ratios, first.met(ratios[0])), ([0.7, 0.5, 0.7, 1], True))
        self.assertFalse(first.met(0.71))
        self.assertEqual(first.ratios(self.book("keepalive", "cpu", {"tombolo2": (10,)})), [])

    def test_what_is_added_is_what_is_more_than_direct(self):
        target = next(target for target in targets() if target.what.startswith("pair: p99"))
        book = self.book("paced", "p99", {"direct": (0.25,), "tombolo2": (0.5,), "envoy2-connect": (0.75,)})
        self.assertEqual(target.ratios(book), [0.5, 0.5])
        # Less than nothing is nothing to compare with.
        self.assertEqual(target.ratios(self.book("paced", "p99", {"direct": (2,), "tombolo2": (1,), "envoy2-connect": (1,)})), [])

    def test_what_is_measured_once_stands_for_every_round(self):
        target = next(target for target in targets() if target.what.startswith("gateway, idle"))
        book = self.book("memory", "idle", {"tombolo2 egress": (7,), "tombolo2 ingress": (9,)})
        self.assertEqual((target.ratios(book)[0], target.met(9)), (9, False))

    def test_every_row_of_a_target_is_measured(self):
        def keys(value):
            return [value.key] if isinstance(value, Of) else [key for one in value.of for key in keys(one)]
        for target in targets():
            for measure, row, column in keys(target.ours) + keys(target.theirs):
                self.assertIn(measure, MEASURES)
                self.assertIn(column, report.COLUMNS)
                known = {"memory": row == "agent" or row.split()[0] in CHAINS, "names": row == "tombolo"}
                self.assertTrue(known.get(measure, row in CHAINS), (measure, row))


class Choice(unittest.TestCase):
    def test_all_and_some(self):
        usual = Options({})
        self.assertEqual((usual.rounds, usual.seconds, usual.chains, usual.measures), (3, 4, CHAINS, MEASURES))
        some = Options({"BENCH_ROUNDS": "1", "BENCH_CHAINS": "tombolo2, direct", "BENCH_ONLY": "paced"})
        self.assertEqual((some.rounds, some.chains, some.measures), (1, ["direct", "tombolo2"], ["paced"]))

    def test_what_is_not_known_is_said(self):
        for name, value in (("BENCH_ROUNDS", "0"), ("BENCH_SECONDS", "x"), ("BENCH_CHAINS", "nobody"), ("BENCH_ONLY", "all")):
            with self.assertRaisesRegex(ValueError, name):
                Options({name: value})


if __name__ == "__main__":
    unittest.main()
