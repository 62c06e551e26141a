"""Calls to AWS: every error of botocore becomes one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config

from cluster.errors import ClusterError

CREDENTIALS = "check the access key and this machine's clock, or name another profile in the settings"
LOGIN = "log in again (aws sso login, or new keys), or name another profile in the settings"
LATER = "wait a minute and try again"
# Amazon's error codes: what they mean here, and what to do.
OF_SERVICE = {
    "InsufficientInstanceCapacity": (
        "AWS has no such machines free there just now",
        "name another availability_zone or region in the settings, or try later",
    ),
    "VcpuLimitExceeded": (
        "the account may not run so many vCPUs of this kind",
        "ask for more under Service Quotas (for g5: Running On-Demand G and VT instances, L-DB2E81BA)",
    ),
    "Unsupported": ("not offered there", "name another availability_zone in the settings"),
    "AuthFailure": ("the credentials were refused", CREDENTIALS),
    "InvalidClientTokenId": ("the credentials were refused", CREDENTIALS),
    "SignatureDoesNotMatch": ("the credentials were refused", CREDENTIALS),
    "ExpiredToken": ("the credentials have expired", LOGIN),
    "RequestExpired": ("the credentials have expired", LOGIN),
    "RequestLimitExceeded": ("AWS takes no more calls for the moment", LATER),
    "Throttling": ("AWS takes no more calls for the moment", LATER),
    "OptInRequired": ("the account may not use this service yet", "finish its registration in the AWS console"),
    "PendingVerification": ("the account is still being verified", LATER),
    "InvalidKeyPair.NotFound": (
        "there is no such key pair",
        "name one that exists in this region as key_pair, or import yours: aws ec2 import-key-pair",
    ),
    "OperationNotPermitted": (
        "AWS does not permit it",
        "switch termination protection off: aws ec2 modify-instance-attribute --no-disable-api-termination",
    ),
}
NOT_ALLOWED = ("UnauthorizedOperation", "AccessDenied")
# Errors on this side of the line, subclasses before their bases.
OF_CLIENT: tuple[tuple[type[exceptions.BotoCoreError], str, str], ...] = (
    (exceptions.NoRegionError, "no region", "name it as region in the settings, or set AWS_DEFAULT_REGION"),
    (exceptions.InvalidRegionError, "no such region", "name a region such as us-east-1"),
    (
        exceptions.NoCredentialsError,
        "no credentials",
        "run aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in the settings",
    ),
    (exceptions.PartialCredentialsError, "half of the credentials is missing", CREDENTIALS),
    (exceptions.CredentialRetrievalError, "the credentials cannot be fetched", LOGIN),
    (exceptions.SSOError, "the login has expired", LOGIN),
    (exceptions.TokenRetrievalError, "the login has expired", LOGIN),
    (exceptions.ProfileNotFound, "no such profile", "name one that aws configure list-profiles shows, or null"),
    (
        exceptions.EndpointConnectionError,
        "AWS cannot be reached",
        "check the region's name and this machine's network",
    ),
    (exceptions.ConnectTimeoutError, "AWS cannot be reached", "check this machine's network"),
    (exceptions.HTTPClientError, "the connection to AWS failed", "check this machine's network and try again"),
)


class AwsError(ClusterError):
    """AWS refused a call, or could not be asked; ``code`` is Amazon's name of the error, or botocore's class."""

    def __init__(self, what: str, *, where: str, code: str, received: str, fix: str | None) -> None:
        self.code = code
        super().__init__(what, where=where, received=received, fix=fix)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Errors of botocore inside the block become AwsError."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _of_service(error, where) from error
    except exceptions.BotoCoreError as error:
        name, text = type(error).__name__, " ".join(str(error).split())
        for kind, what, fix in OF_CLIENT:
            if isinstance(error, kind):
                raise AwsError(what, where=where, code=name, received=text, fix=fix) from error
        raise AwsError("the call failed", where=where, code=name, received=f"{name}: {text}", fix=None) from error


def _of_service(error: exceptions.ClientError, where: str) -> AwsError:
    code, operation = error.response["Error"]["Code"], error.operation_name
    # What follows is a page of base64 for administrators.
    text = error.response["Error"].get("Message", "").split("Encoded authorization failure message")[0]
    received = f"{code}: {' '.join(text.split())}"
    if code in NOT_ALLOWED:
        what, fix = f"not allowed to call {operation}", "let the account's administrator allow it (docs/aws.md)"
    else:
        what, known_fix = OF_SERVICE.get(code, ("refused", ""))
        what, fix = f"{operation}: {what}", known_fix
    return AwsError(what, where=where, code=code, received=received, fix=fix or None)


@dataclass(frozen=True)
class Aws:
    """One region of one account; the client is given, so that tests may give another."""

    ec2: Any
    region: str
    account: str

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"AWS {self.region}"

    def call(self, operation: str, **parameters: Any) -> Any:
        """The answer to one call. Raises AwsError."""
        with explained(self.where):
            return getattr(self.ec2, operation)(**parameters)

    def every(self, operation: str, key: str, **parameters: Any) -> list[Any]:
        """What a listing holds under ``key``, over all its pages. Raises AwsError."""
        with explained(self.where):
            pages = self.ec2.get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key, [])]


def open_aws(profile: str | None, region: str | None) -> Aws:
    """Connect with the user's credentials. Raises AwsError where there are none, or they are refused."""
    # Standard mode repeats what failed on the way; RunInstances bears one client token over all its repeats.
    config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
    with explained("AWS"):
        session = boto3.Session(profile_name=profile, region_name=region)
        ec2 = session.client("ec2", config=config)
        sts = session.client("sts", region_name=ec2.meta.region_name, config=config)
        return Aws(ec2, region=ec2.meta.region_name, account=sts.get_caller_identity()["Account"])
