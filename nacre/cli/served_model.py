"""What a verifier would call a model: the names under which the store keeps the rows of its drafters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nacre.store import Namespace


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`source` is how the user called it; the others are as in a handshake."""

    source: str
    target: str
    revision: str
    tokenizer_fingerprint: str
    tokenizer: Path

    def namespace(self, tenant: str) -> Namespace:
        """Where a tenant's rows of this model are."""
        from nacre.store import Namespace

        return Namespace(tenant, self.target, self.revision, self.tokenizer_fingerprint)


def named_model(model: str | None, config: str | None) -> ServedModel | None:
    """The model that a flag names, or the verifier's settings; None where neither does. Raises NacreError."""
    loaded = _verifier_settings(model, config)
    if loaded.origins["target"] == "default":
        return None
    return served_model(loaded.settings.target, loaded.settings.revision)


def model_or_default(model: str | None, config: str | None) -> ServedModel:
    """The model that a verifier with this flag and these settings would serve. Raises NacreError."""
    settings = _verifier_settings(model, config).settings
    return served_model(settings.target, settings.revision)


def served_model(source: str, revision: str = "") -> ServedModel:
    """`revision` is a hub's; a directory has its own. Raises NacreError for what no verifier could serve.

    Asks as the engine does, which knows how a directory's revision is made: that takes the `model` extra.
    """
    from nacre.cli.model_files import read_model_files, resolve
    from nacre.engine.loading import locate, weights_revision
    from nacre.errors import NotFound
    from nacre.ids import tokenizer_fingerprint

    place = resolve(source)
    is_directory = Path(place).expanduser().is_dir()
    path, target, commit = locate(place, None if is_directory else revision or None)
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise NotFound(f"{source} has no tokenizer.json; a verifier serves its model's tokenizer: name another model")
    read_model_files(path)  # a message for what is no model, before its bytes are read
    return ServedModel(source, target, commit or weights_revision(path), tokenizer_fingerprint(tokenizer), tokenizer)


def _verifier_settings(model: str | None, config: str | None) -> Any:
    from nacre.runtime.settings import VerifierSettings, load_settings

    given = {"--target": model, "--config": config}
    arguments = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return load_settings(VerifierSettings, "verifier", arguments, prog="nacre store")
