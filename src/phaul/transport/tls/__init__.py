"""The TLS transport: both channels over TLS 1.3, with a certificate pinned on each side.

Used from the connection to the end, on both hosts, beside ssh behind the same two interfaces.

    source                                     destination
    ------                                     -----------
    TlsSource                                  `phaul serve` (daemon), which speaks no TLS itself
      connects                            -->  accepts, starts `phaul agent --connection FD`
      TLS, its certificate                <->  TLS (agent), its certificate
      "phaul control 1"                   -->
                                          <--  "phaul ok"
      the control channel                 <->  the agent of one migration

    and for the memory a second connection, to a second such process:
      "phaul memory TOKEN"                -->  connects to the agent's memory door
                                          <--  "phaul ok"
      pump: CRIU's unix socket, TLS       <->  pump: TLS, the agent's unix socket

Trust is in the exact certificate: no authority, no host name, no date.  Two hosts learn each
other's by a token that a person carries over (`invitation`, `join`).
"""
