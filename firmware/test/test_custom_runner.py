"""PlatformIO's view of a test program of ours: a PASS or FAIL line per case, END at the end."""

from platformio.public import TestCase, TestRunnerBase, TestStatus


class CustomTestRunner(TestRunnerBase):
    """Reads the lines that a test program writes to its console."""

    def on_testing_line_output(self, line):
        """Takes one line; unknown ones are shown as they are."""
        verdict, _, rest = line.strip().partition(" ")
        if verdict == "END":
            self.test_suite.on_finish()
        elif verdict in ("PASS", "FAIL"):
            name, _, why = rest.partition(": ")
            status = TestStatus.PASSED if verdict == "PASS" else TestStatus.FAILED
            case = TestCase(name=name, status=status, message=why or None, stdout=line)
            self.test_suite.add_case(case)
            print(case.humanize())
        else:
            print(line, end="")
