"""What a refusal must be like, whatever the reason."""

from tests.hosts.command import Command, Outcome
from tests.hosts.machine import Hosts
from tests.hosts.subject import Subject

REFUSED, UNREACHED, INCOMPATIBLE = 3, 4, 5


class Refusal:
    """Asks for a migration that must be refused."""

    def __init__(self, hosts: Hosts, phaul: Command) -> None:
        self.hosts = hosts
        self.phaul = phaul

    def __call__(
        self, subject: Subject, *names: object, check: str | tuple[str, ...],
        status: int = REFUSED, options: tuple[object, ...] = (),
    ) -> Outcome:  # fmt: skip
        """Preflight refuses: one of the checks says no, with all names and a remedy.

        Both are said on standard error.  The victim is whole where it was, and neither host has
        anything that it did not have before.
        """
        outcome = self.ends(subject, status=status, options=options)
        checks = (check,) if isinstance(check, str) else check
        found = outcome.event("checked")["findings"]
        no = [finding for finding in found if finding["level"] == "no"]
        meant = [finding for finding in no if finding["check"] in checks]
        assert meant, f"no {checks} among {no}"
        assert [finding for finding in no if finding["check"] not in checks] == []
        for name in names:
            assert any(str(name) in f["what"] + f["remedy"] for f in meant), f"{name}: {meant}"
        for finding in meant:
            assert finding["remedy"], finding
            outcome.says(finding["what"], finding["remedy"])
        return outcome

    def ends(
        self, subject: Subject, *texts: str, status: int, options: tuple[object, ...] = (),
        target: str = "root@host2",
    ) -> Outcome:  # fmt: skip
        """It ends with that status and says the texts; all is as it was before."""
        subject.whole(self.hosts.source)
        for host in self.hosts.both:
            host.remember()
        outcome = self.phaul.migrate(subject, *options, target=target)
        assert outcome.status == status, outcome
        outcome.says(*texts, f"still running here, PID {subject.pid}")
        subject.whole(self.hosts.source)
        for host in reversed(self.hosts.both):
            assert host.leftovers() == [], outcome
        return outcome
