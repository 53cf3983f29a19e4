"""What an S3 store's refusals mean, in sentences."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from storages.stores.base import (
    AlreadyExists,
    Conflict,
    Denied,
    NotFound,
    StoreConfig,
    StoreError,
    Unreachable,
    Untrusted,
)

# All that botocore and urllib3 raise once a client is made.
FAULTS = (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)
NO_ANSWER = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError, HTTPError, OSError)
PERMISSIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}

# code: (class, what happened, what to do); {bucket}, {place}, {key} and {region} are filled in.
CODES: dict[str, tuple[type[StoreError], str, str]] = {
    "NoSuchKey": (NotFound, "There is no object {key} in bucket {bucket}.", ""),
    "NoSuchBucket": (StoreError, "There is no bucket {bucket} at {place}.", "Create it, or correct Bucket Name."),
    "InvalidBucketName": (StoreError, "{bucket} is not a legal bucket name.", "Correct Bucket Name."),
    "InvalidAccessKeyId": (Denied, "{place} does not know the access key.", "Enter Access Key and Secret Key again."),
    "SignatureDoesNotMatch": (Denied, "{place} says that the secret key is wrong.", "Enter Secret Key again."),
    "ExpiredToken": (Denied, "The access key has expired.", "Enter a new Access Key and Secret Key."),
    "RequestTimeTooSkewed": (Denied, "This machine's clock is wrong, says {place}.", "Set its clock."),
    "AuthorizationHeaderMalformed": (StoreError, "Bucket {bucket} is not in region {region}.", "Correct Region."),
    "PermanentRedirect": (StoreError, "Bucket {bucket} is not served by {place}.", "Correct Region and Endpoint."),
    "IllegalLocationConstraintException": (StoreError, "Bucket {bucket} is not in region {region}.", "Correct Region."),
    "PreconditionFailed": (AlreadyExists, "{key} is taken.", ""),
    "ConditionalRequestConflict": (Conflict, "Another write to {key} is under way.", "Try again."),
    "OperationAborted": (Conflict, "Another change of {key} is under way.", "Try again."),
    "SlowDown": (Unreachable, "{place} asks to slow down.", "Try again later, or raise the store's limits."),
    "NoSuchUpload": (Unreachable, "{place} has lost the upload of {key}.", "Try again."),
    "BadDigest": (Unreachable, "{key} was altered on its way to {place}, which refused it.", "Try again."),
    "QuotaExceeded": (StoreError, "The quota of bucket {bucket} is used up.", "Raise it, or delete backups."),
}
SAME = {
    "404": "NoSuchKey",
    "412": "PreconditionFailed",
    "409": "ConditionalRequestConflict",
    "301": "PermanentRedirect",
    "InvalidToken": "InvalidAccessKeyId",
    "UnauthorizedAccess": "InvalidAccessKeyId",
    "InvalidRegion": "AuthorizationHeaderMalformed",
    "TemporaryRedirect": "PermanentRedirect",
    "XAmzContentSHA256Mismatch": "BadDigest",
    "InvalidDigest": "BadDigest",
    "IncompleteBody": "BadDigest",
    "TooManyRequests": "SlowDown",
    "RequestLimitExceeded": "SlowDown",
    "XMinioStorageFull": "QuotaExceeded",
    "InsufficientStorage": "QuotaExceeded",
    "507": "QuotaExceeded",
}
LATER = {408, 425, 429, 500, 502, 503, 504}


def explain(error: Exception, config: StoreConfig, key: str = "") -> StoreError:
    """The StoreError that stands for one of FAULTS."""
    if isinstance(error, ClientError):
        return _refused(error, config, key)
    if isinstance(error, SSLError):
        return _tls(error, config)
    if isinstance(error, NO_ANSWER):
        return _no_answer(error, config)
    return StoreError(f"{place(config)} cannot be asked: {error}", hint="Correct the storage's settings.")


def no_store(config: StoreConfig) -> Unreachable:
    """For answers that no store gives: a wrong endpoint, or the page of a proxy before a store that is down."""
    return Unreachable(f"{place(config)} does not answer as an S3 store does.", hint="Check Endpoint and proxies.")


def place(config: StoreConfig) -> str:
    return config.endpoint or f"Amazon S3 in {config.region or 'us-east-1'}"


def _refused(error: ClientError, config: StoreConfig, key: str) -> StoreError:
    operation: str = error.operation_name
    answer: Any = error.response
    code, text = answer.get("Error", {}).get("Code", ""), answer.get("Error", {}).get("Message", "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("", "404") and not operation.startswith("Head"):  # a store would say more than a number
        return no_store(config)
    if known := CODES.get(SAME.get(code, code)):
        kind, what, hint = known
        words = {"bucket": config.bucket, "place": place(config), "key": key, "region": config.region or "us-east-1"}
        return kind(what.format(**words), hint=f"{hint}{_right_region(answer)}".strip())
    if status in (401, 403):
        return Denied(
            f"{place(config)} does not let this access key do {operation} in bucket {config.bucket} ({text or code}).",
            hint=f"Check the keys, and allow {PERMISSIONS.get(operation, operation)}.",
        )
    kind = Unreachable if status in LATER else StoreError
    return kind(f"{place(config)} answered {operation} with {code}: {text}.", hint="The store's own log may say more.")


def _right_region(answer: Any) -> str:
    """The region that the store itself names, as a sentence."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region", "")
    return f" The store names region {region}." if region else ""


def _tls(error: SSLError, config: StoreConfig) -> StoreError:
    text = str(error)
    hint = "See whether the endpoint speaks TLS (https) on this port."
    if "mismatch" in text or "doesn't match" in text or "not valid for" in text:
        hint = "Its certificate is for another name: correct Endpoint, or the certificate."
    elif "expired" in text:
        hint = "Its certificate has expired: renew it."
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "Its certificate is not trusted: enter the CA certificate that signed it."
    return Untrusted(f"TLS with {place(config)} failed.", hint=hint)


def _no_answer(error: Exception, config: StoreConfig) -> StoreError:
    """Names, connections, time-outs, bodies that end too early."""
    text = f"{error} {error.__context__}"
    reason, hint = "the connection broke off", "Check Endpoint, network and firewall."
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        reason = "no answer in time"
    elif "resolve" in text or "not known" in text:
        reason = "its name is unknown"
        hint = "Check Endpoint." if config.path_style else "Check Endpoint, or force path-style URL access."
    elif "refused" in text:
        reason = "it refused the connection"
    return Unreachable(f"{place(config)} cannot be reached: {reason}.", hint=hint)
