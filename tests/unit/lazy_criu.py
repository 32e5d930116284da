"""A program that stands for a CRIU which dumps without the memory, up to its first notification."""

import sys
from pathlib import Path

from phaul.criu.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"""
import os, socket, sys
sys.path[:0] = [{str(ROOT / "src")!r}, *{[p for p in sys.path if "site-packages" in p]!r}]
from phaul.criu.messages import message_class
rpc = socket.socket(fileno=int(sys.argv[2]))
def receive():
    return message_class("Request").FromString(rpc.recv(1 << 16))
def say(**fields):
    rpc.send(message_class("Response")(**fields).SerializeToString())
def hold(script):
    answer = message_class("Response")(type=6, success=True)
    answer.notify.script = script
    rpc.send(answer.SerializeToString())
    return receive().notify_success
opts = receive().opts
told = open(opts.config_file).read().split()
pages = socket.socket(fileno=int(told[-1]))
def end(success):
    say(type=1, success=success)
    sys.exit(0 if success else 1)
"""


def lazy_criu(folder: Path, body: str) -> Engine:
    """One that does what `body` says; `hold`, `end`, `opts` and `pages` are there for it."""
    path = folder / "criu.py"
    path.write_text(PROGRAM + body)
    return Engine([sys.executable, "-S", str(path)], "here")
