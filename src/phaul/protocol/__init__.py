"""What the two ends of a migration say to each other: messages, frames, versions, legal steps.

Used in every phase, on both hosts, and pure: no I/O.  One control channel carries one migration;
the memory goes over a channel of its own.  The source asks, the agent on the destination answers.

    source                                                 agent
    ------                                                 -----
    Hello(versions, criu, migration)           -->
                                               <--  Welcome(version, facts, token)
    Clock                                      -->  what time is it there?
                                               <--  Time
    Survey(needs)                              -->  does this host have what the tree uses?
    ... more of them ...                       <--  Surveyed(findings)
    the memory channel is opened with the token ==>
    Prepare(pids, memory, options)             -->  can I take it?
                                               <--  Done
    StartRound(0)                              -->  a reader stands
                                               <--  Done
    a pre-dump through the memory channel      ==>
    StopRound(0)                               -->  awaits its end
                                               <--  Done
    ... more rounds ...
    StartRound(n), the final dump, StopRound(n)     as above; the tree stands frozen on the source
    or Follow, and the final dump: its memory       stays on the source, and follows when it runs
    Image(name, size), its bytes as raw frames -->  no answer: a fault is the answer to Restore
    ... more images ...
    Restore(images)                            -->  restores, holds it in `post-restore`
                                               <--  Ready(pid)
    the tree is killed on the source
    Commit                                     -->  lets it run: it is the destination's now
                                               <--  Running
    Drain                                      -->  is all of its memory in?
    ... until it is ...                        <--  Draining
    Bye                                        -->  cleans up
                                               <--  Done

Instead of Commit, Discard ends the held copy; before Restore it gives up what was received.  Any
answer may be Failed instead: the error, to be raised on the source as what it was there.  `agent`
draws which step is legal when, `ownership` whose the process is meanwhile.

If the connection is lost, another one settles what is left; `settlement` says how:

    Hello(settle)                              -->
                                               <--  Welcome
    Ask(key)                                   -->  what is there of it?
                                               <--  Standing(copy)
    Commit, or Discard, or Recover             -->
                                               <--  Running, Done, Ready
    Attach, where memory still follows         -->  over this connection's memory channel
                                               <--  Done
    Bye                                        -->
                                               <--  Done

Alive may be sent by either side at any time, also between the raw frames of an image; nobody
answers it.  It tells a long piece of work from a peer that is gone.

Versions: Hello names the versions that the source speaks, Welcome the newest that both do.  Frames,
Hello, Welcome, Failed, Bye and Alive are the same in every version, for ever.  Any other message
may change only with the number: a new field, a wider bound, a new message or another meaning is a
new version.  Unknown fields and messages are errors, not hints.
"""

from typing import Final

__all__ = ["NEWEST", "OLDEST"]

OLDEST: Final = 4
NEWEST: Final = 4
"""The versions that this phaul speaks."""
