"""The key that secrets in the database are sealed with: one file, the same for every process on a database."""

from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import make_secret
from hydrasms_core.db.transaction import Database
from hydrasms_core.sealing import store

_COPY_IT = (
    "copy sealing.key from the data directory of a process that uses the database already, or name it with "
    "HYDRASMS_SEALING_KEY_FILE"
)


async def sealer_of(settings: Settings, database: Database) -> Sealer:
    """Return what seals and opens secrets, after making the key where there is none yet; raises Problem.

    The database remembers whose key it is: with another one no webhook could be signed, and nobody who has opted out
    would be found.
    """
    path = settings.sealing_key_file
    # The key comes before its check: where there is a check and no file, the key is somewhere else.
    if not path.exists() and await database.read(store.known_check) is not None and not path.exists():
        raise Problem(f"there is no sealing key {path}, and the database was set up with one: {_COPY_IT}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sealer = Sealer(make_secret(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Problem(f"cannot use the sealing key {path}: {reason}") from None

    if await database.write(lambda tx: store.first_check(tx, sealer.check)) != sealer.check:
        raise Problem(f"the sealing key {path} is not the one that this database was set up with: {_COPY_IT}")
    return sealer
