"""Host keys as the instances themselves print them at their first boot: the way around the network to check them."""

from __future__ import annotations

import base64
import binascii
import re
import time
from dataclasses import dataclass
from hashlib import sha256

from cluster.aws.instances import Instance
from cluster.aws.service import Aws, AwsError
from cluster.aws.waiting import Patience, Talk

KEY = re.compile(r"\b(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})")
FINGERPRINT = re.compile(r"\b(SHA256:[A-Za-z0-9+/]{43}) .*?\((\S+)\)")


@dataclass(frozen=True)
class ConsoleKeys:
    """What one console shows: fingerprints for people, and lines ``<algorithm> <base64>`` to be pinned."""

    fingerprints: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


def parse_console(text: str) -> ConsoleKeys:
    """The keys that cloud-init printed last; one whose line the kernel's messages tore apart is left out."""
    printed = FINGERPRINT.findall(_block(text, "FINGERPRINTS"))
    marks = {mark for mark, _ in printed}
    keys = [f"{kind} {data}" for kind, data in KEY.findall(_block(text, "KEYS")) if _fingerprint(kind, data) in marks]
    return ConsoleKeys(tuple(f"{kind} {mark}" for mark, kind in printed), tuple(keys))


def _block(text: str, title: str) -> str:
    """What stands between the last pair of marks with this title."""
    begin, end = (f"-----{word} SSH HOST KEY {title}-----" for word in ("BEGIN", "END"))
    found = text.rpartition(end)[0].rpartition(begin)
    return found[2] if found[1] else ""


def _fingerprint(kind: str, data: str) -> str | None:
    """OpenSSH's fingerprint of a key, None if it is not one."""
    try:
        blob = base64.b64decode(data, validate=True)
    except binascii.Error:
        return None
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        return None
    return "SHA256:" + base64.b64encode(sha256(blob).digest()).decode().rstrip("=")


def read_consoles(aws: Aws, instances: list[Instance], patience: Patience, talk: Talk) -> dict[str, ConsoleKeys]:
    """Per instance what its console shows; AWS passes it on late, so that some may be empty."""
    deadline = time.monotonic() + patience.console_s
    shown = {item.instance: ConsoleKeys() for item in instances}
    try:
        while True:
            for instance in (name for name, keys in shown.items() if not keys.fingerprints):
                answer = aws.call("get_console_output", InstanceId=instance, Latest=True)
                shown[instance] = parse_console(answer.get("Output", ""))
            if all(keys.fingerprints for keys in shown.values()) or time.monotonic() >= deadline:
                return shown
            talk("host keys: not on every console yet")
            time.sleep(patience.poll_s)
    except AwsError as error:
        talk(f"host keys: the consoles cannot be read: {error}")
        return shown
