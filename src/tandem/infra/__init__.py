"""What every part needs and no part is about: database, clock, HTTP, files, logs, errors.

Nothing here knows a word of the domain. `database`, `jobs`, `events` and `http` are for servers and
need the `tandem[server]` dependencies; everything else also serves the gateway and the agent.
"""
