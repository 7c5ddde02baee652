"""How signatures are held to their types in tests: as Python and mypy do, an int is good for a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
