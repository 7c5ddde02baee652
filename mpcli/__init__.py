"""A textbook of machine perception that runs.

Plugin pages rely on `mpcli.run` (Run, Trained), `mpcli.errors` (InputError, Failed) and `mpcli.checks` (Case and its
makers); those are the public interface. Building blocks for pages are in `mpcli.kit`.
"""
