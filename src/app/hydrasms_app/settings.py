"""What an operator may set: flags over environment (`HYDRASMS_…`) over the defaults here.

docs/configuration.md lists them all. Everything is checked at once and every fault is reported.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hydrasms_app.core_address import is_loopback
from hydrasms_app.problems import Problem
from hydrasms_core.webhooks.addresses import Network, networks


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="HYDRASMS_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    http_host: str = "127.0.0.1"
    """Address that the REST API listens on."""
    http_port: int = Field(default=8080, ge=0, le=65_535)
    """Port of the REST API; 0 takes any free one."""
    grpc_host: str = "127.0.0.1"
    """Address that the core listens on."""
    grpc_port: int = Field(default=50_051, ge=0, le=65_535)
    """Port of the core; 0 takes any free one."""
    grpc_socket: Path | None = None
    """Unix socket that the core listens on instead of a port."""
    ops_host: str = "127.0.0.1"
    """Address that a core or worker answers operators on."""
    ops_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of that; without one they answer nowhere."""
    data_dir: Path = Path("var")
    """Folder of the database, the service token and the demo account's key."""
    database_url: SecretStr | None = None
    """Another database than hydrasms.db in the data directory: sqlite:///PATH or postgresql://…; it may hold a
    password, and does not print."""
    lanes: int = Field(default=1, ge=1, le=1_024)
    """How many partitions by account an empty PostgreSQL database is given, and lanes that sends are written in."""
    core_address: str | None = Field(default=None, validation_alias="HYDRASMS_CORE")
    """Address of the core for the command line and a separate edge, in a form that `core_address.py` knows."""
    tls_cert: Path | None = None
    """Certificate that this process shows, in PEM: a core to its callers, an edge or the command line to the core."""
    tls_key: Path | None = None
    """The key of that certificate."""
    tls_ca: Path | None = None
    """Authority that the other side's certificate must come from."""
    tls_name: str | None = None
    """Name that the core's certificate must carry, where that is not the host of its address."""
    tls_allowed: str = "hydrasms-service"
    """Names of the certificates whose holders need no service token, with commas between them."""
    token_path: Path | None = Field(default=None, validation_alias="HYDRASMS_TOKEN_FILE")
    """File of the service token; service.token in the data directory unless set."""
    sealing_key_path: Path | None = Field(default=None, validation_alias="HYDRASMS_SEALING_KEY_FILE")
    """File of the key that secrets in the database are sealed with; sealing.key in the data directory unless set."""
    workers: int = Field(default=1, ge=1, le=64)
    """How many processes serve everything on the same ports."""
    sent_from: str = Field(default="+2899682626", min_length=1, max_length=20)
    """What recipients see as the sender."""
    replies_per_hour: int = Field(default=3, ge=0, le=1_000)
    """How many automatic replies one number gets within an hour at most."""
    webhook_allow: str | None = None
    """Networks that webhooks may go to although they are not on the public internet, with commas between them, or
    none."""
    webhook_deliveries_kept_days: int = Field(default=30, ge=1, le=3_650)
    """For how many days what was pushed to webhooks, and every attempt at it, can be looked at."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """json, text, or auto: text on a terminal and json elsewhere."""
    coalesce: bool = True
    """Whether an edge passes concurrent sends on to a core in another process together."""
    reflection: bool = False
    """Whether the core describes itself to tools such as grpcurl."""

    @field_validator("webhook_allow")
    @classmethod
    def _name_networks(cls, text: str | None) -> str | None:
        _webhook_networks(text)
        return text

    @model_validator(mode="after")
    def _keep_tokens_off_the_network(self) -> "Settings":
        named = [self.tls_cert, self.tls_key, self.tls_ca]
        if any(named) and not all(named):
            raise ValueError(
                "HYDRASMS_TLS_CERT, HYDRASMS_TLS_KEY and HYDRASMS_TLS_CA go together: set all three"
            )
        if self.grpc_socket is None and not any(named) and not is_loopback(self.grpc_host):
            raise ValueError(
                "HYDRASMS_GRPC_HOST: the core listens on loopback addresses alone unless it speaks TLS "
                "(HYDRASMS_TLS_CERT, HYDRASMS_TLS_KEY, HYDRASMS_TLS_CA)"
            )
        return self

    @property
    def core(self) -> str:
        """Address of the core; unless it is set, that of one on this host with the same settings."""
        if self.core_address is not None:
            return self.core_address
        return f"unix:{self.grpc_socket}" if self.grpc_socket is not None else f"127.0.0.1:{self.grpc_port}"

    @property
    def tls_allowed_names(self) -> frozenset[str]:
        """The names of certificates whose holders need no service token."""
        return frozenset(name.strip() for name in self.tls_allowed.split(",") if name.strip())

    @property
    def webhook_networks(self) -> tuple[Network, ...] | None:
        """Networks beside the public internet that webhooks may go to; None where nothing is said about it."""
        return _webhook_networks(self.webhook_allow)

    @property
    def token_file(self) -> Path:
        """File that holds the service token."""
        return self.token_path or self.data_dir / "service.token"

    @property
    def sealing_key_file(self) -> Path:
        """File that holds the key for sealing secrets."""
        return self.sealing_key_path or self.data_dir / "sealing.key"

    @property
    def database(self) -> Path | str:
        """The database: the path of a SQLite file, or the URL of a PostgreSQL database."""
        if self.database_url is None:
            return self.data_dir / "hydrasms.db"
        scheme, _, path = self.database_url.get_secret_value().partition("://")
        if scheme in ("postgresql", "postgres"):
            return f"postgresql://{path}"
        if scheme == "sqlite" and path.startswith("/") and len(path) > 1:
            return Path(path[1:])
        raise Problem(
            "HYDRASMS_DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/NAME or sqlite:///PATH "
            "(sqlite:////PATH for an absolute one)."
        )


def _webhook_networks(text: str | None) -> tuple[Network, ...] | None:
    if text is None:
        return None
    return () if text.strip().lower() == "none" else networks(text)


def load_settings(**flags: Any) -> Settings:
    """Return the settings from flags (those that are not None) and environment; raises Problem naming each fault."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = (
            f"{_shown_name(fault['loc'])}: {fault['msg']}" if fault["loc"] else _bare(fault["msg"])
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise Problem("; ".join(faults)) from None


def _bare(message: str) -> str:
    """Return the words of a fault that concerns several settings, which it names itself."""
    return message.removeprefix("Value error, ")


def variable(name: str) -> str:
    """Return the environment variable of the setting with that name."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias is not None else f"HYDRASMS_{name.upper()}"


def _shown_name(location: tuple[int | str, ...]) -> str:
    name = str(location[0])
    return name if name.startswith("HYDRASMS_") else f"HYDRASMS_{name.upper()}"
