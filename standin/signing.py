"""Signed URLs: an HMAC over operation, stage, path and expiry.

As strict as a cloud's: an expired or changed URL is refused, so that code which signs too early
fails here.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from standin.whole import kept_secret

FILE_URL_HOST = "https://sandbox.local"
LONGEST_S = 604_800
DEFAULT_S = 3_600


@dataclass(frozen=True)
class Signer:
    """Makes and checks signatures for the server at base_url."""

    key: bytes
    base_url: str

    @classmethod
    def load(cls, key_file: Path, base_url: str) -> Signer:
        """The signer of this folder; its key outlives the server, so that signed URLs do too."""
        return cls(kept_secret(key_file).encode(), base_url)

    def signature(self, operation: str, stage: str, path: str, expires: str) -> str:
        """expires: seconds since 1970, in digits."""
        message = f"{operation}\n{stage}\n{quote(path)}\n{expires}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()

    def signed_url(self, stage: str, path: str, seconds: int, operation: str = "get") -> str:
        """stage: its url part, such as CLOTHING/PUBLIC/CLOTHING_DATASET. seconds: 1 to 604800."""
        expires = str(int(time.time()) + seconds)
        signature = self.signature(operation, stage, path, expires)
        route = "stage" if operation == "get" else "stage-files"
        return (
            f"{self.base_url}/{route}/{stage}/{quote(path)}?expires={expires}&signature={signature}"
        )

    def why_refused(
        self, stage: str, path: str, expires: str, signature: str, operation: str = "get"
    ) -> str | None:
        """Why a signed URL is refused; None if it is good."""
        good = self.signature(operation, stage, path, expires)
        if not hmac.compare_digest(good.encode(), signature.encode()):
            return "SignatureDoesNotMatch"
        return "Request has expired" if int(expires) < time.time() else None

    def transfer_token(self, operation: str, stage: str) -> str:
        """A bearer token with which the connector puts or gets files of one stage for an hour."""
        expires = str(int(time.time()) + DEFAULT_S)
        return f"{expires}.{self.signature(operation, stage, '', expires)}"

    def allows(self, token: str, operation: str, stage: str) -> bool:
        """Whether the bearer of this token may do that with the stage's files, as of now."""
        expires, _, signature = token.partition(".")
        if not expires.isdigit() or int(expires) < time.time():
            return False
        return hmac.compare_digest(self.signature(operation, stage, "", expires), signature)


def file_url(stage: str, path: str) -> str:
    """The stable address of a staged file, the same whatever port the server has."""
    return f"{FILE_URL_HOST}/api/files/{stage}/{quote(path)}"
