"""The admin socket: how the operator's commands talk to a running server.

It is a Unix socket, `admin.sock` in the server's state folder, for the server's own user and root alone.  Whoever
connects sends JSON objects, one a line, and gets one line for each, in order: ``{"ok": true, …}``, or
``{"ok": false, "error": SENTENCE, "code": CODE}``.  Times are whole seconds since the epoch, and fields without a
value are null, or left out.

``{"do": "status"}``
    How the server is: *version*, *pid*, *uptime* in seconds, the addresses *control*, *public* and *https*, the number
    of *sessions*, *tunnels*, *visitors* and *bans*, whether it is *open*, whether it is *draining*, and what trouble
    there is with the *database*.
``{"do": "sessions", "after": NUMBER}``
    The clients' sessions whose *number* is larger, some at a time: *more* tells that there are others.  Each has its
    *identity*, *address*, *since*, *silence* in seconds, and *tunnels* with *name*, *kind*, *url* and *visitors*.
``{"do": "kick", "who": TEXT}``
    End the sessions that have the tunnel, host name or port, or the one with the number ``#7``: they are the answer's
    *sessions*.  If it is not *recorded*, the audit has no line for it: the disk is full, for one thing.
``{"do": "ban", "network": CIDR, "until": TIME, "reason": TEXT, "force": BOOLEAN}``
    Turn a network's clients and visitors away.  What is not *recorded* is in force until the server ends.
``{"do": "unban", "network": CIDR}``
    Let it in again.
``{"do": "bans", "after": NETWORK}``
    The *bans* that are in force, by the text of their *network*, some at a time, with *reason* and *until*.
``{"do": "take_over"}`` and ``{"do": "leave"}``
    For another server that is to take this one's place (`otun.server.handoff`).  Before the first one's answer come
    spaces, with which open sockets are passed (SCM_RIGHTS): the names of these *descriptors* are in the answer, in
    their order, as are this server's *pid* and the *routes* and *ports* of the tunnels that are open.  At the second
    one, on the same connection, the server stops listening and drains.

Codes: ``bad_request`` (also a line that is too long, or too slow: then the connection is closed), ``not_found``,
``too_many_bans``, ``database``, ``not_permitted`` and ``busy``.
"""
