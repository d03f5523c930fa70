"""KServe: the rollout's weights on an InferenceService, through the Kubernetes API.

KServe gives ``spec.predictor.canaryTrafficPercent`` of the requests to the newest revision, and the rest to the one
that was rolled out before. It knows no versions, so whoever deploys says in two annotations which ones these are.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.exchange import NoReply, ask, place
from tasks.notify import expand
from tasks.policy import Kserve
from tasks.records import Arm
from tasks.routers import Routing

LATEST, BEFORE = "backstop/version", "backstop/baseline"
"""Annotations of the InferenceService: the version of its newest revision, and of the one rolled out before."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, which is renewed there, and whom to trust."""
_TRIES = 3
_PAUSE = 0.25
"""Seconds between two looks at what becomes of a change."""
_WHOLE = 100


class _Refused(RuntimeError):
    """The weights cannot be put there; the text says why and what to do."""


class _Moved(RuntimeError):
    """Somebody changed the InferenceService in between."""


@dataclass(frozen=True, slots=True)
class KserveRouter:
    """See :class:`tasks.routers.TrafficRouter`.

    Attributes:
        rules: The policy's section.
        environment: For ``${NAME}``.
        account: Folder of the pod's service account.
    """

    rules: Kserve
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    account: Path = ACCOUNT

    def route(self, arms: tuple[Arm, ...], *, dry_run: bool = False) -> Routing:
        """See :meth:`tasks.routers.TrafficRouter.route`."""
        end = time.monotonic() + self.rules.timeout.total_seconds()
        for _ in range(_TRIES):
            try:
                return self._once(arms, end, dry_run=dry_run)
            except _Moved:
                continue
            except _Refused as error:
                return Routing(settled=False, reason=f"{self._name}: {error}")
        return Routing(
            settled=False,
            reason=f"{self._name} was changed by somebody else {_TRIES} times meanwhile; the next tick tries again",
        )

    def _once(self, arms: tuple[Arm, ...], end: float, *, dry_run: bool) -> Routing:
        """Look, change where it differs, look again.

        Raises:
            _Refused: When it cannot be done.
            _Moved: When it has to be done again.
        """
        seen = self._call("GET", end)
        wanted = _percent(seen, arms)
        if _asked(seen) != wanted:
            if wanted > _asked(seen):
                _check_ready(seen)
            if dry_run:
                raise _Refused(f"asks for {_asked(seen)}% where the ledger says {wanted}%; a dry run leaves it")
            change = {
                # Whoever deployed another revision meanwhile has another version in the annotations, too.
                "metadata": {"resourceVersion": _at(seen, "metadata", "resourceVersion")},
                "spec": {"predictor": {"canaryTrafficPercent": wanted}},
            }
            self._call("PATCH", end, change)
            seen = self._read_back(wanted, end)
            if _asked(seen) != wanted or _percent(seen, arms) != wanted:
                raise _Moved
        return self._carried_out(seen, wanted, arms)

    def _read_back(self, wanted: int, end: float) -> Mapping[str, Any]:
        """The InferenceService after a change, once the cluster has carried it out, or after half of the time."""
        patience = end - self.rules.timeout.total_seconds() / 2
        while True:
            seen = self._call("GET", end)
            if (_current(seen) and _given(seen) == wanted) or time.monotonic() > patience:
                return seen
            time.sleep(_PAUSE)

    def _carried_out(self, seen: Mapping[str, Any], wanted: int, arms: tuple[Arm, ...]) -> Routing:
        """Whether the cluster does what it is asked for, by its own word."""
        given = _given(seen)
        listed = ", ".join(f"version {arm.version}: {arm.weight}%" for arm in arms)
        if not _current(seen) or given != wanted:
            now = "nothing is known yet" if given is None else f"the newest revision has {given}% now"
            reason = f"{self._name} is asked for {wanted}% and has not carried it out: {now}; the next tick looks again"
            return Routing(settled=False, reason=reason)
        return Routing(settled=True, reason=f"{self._name} has {listed}")

    def _call(self, method: str, end: float, change: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Ask the API for the InferenceService.

        Raises:
            _Refused: When it does not answer, or not with one.
            _Moved: When a change comes too late.
        """
        where = (
            f"/apis/serving.kserve.io/v1beta1/namespaces/{self.rules.namespace}/inferenceservices/{self.rules.service}"
        )
        try:
            url = expand(self.rules.url, self.environment).rstrip("/")
            reply = ask(
                method,
                url + where,
                seconds=max(0.01, end - time.monotonic()),
                headers={
                    "Accept": "application/json",
                    **({"Content-Type": "application/merge-patch+json"} if change else {}),
                    **self._authorization(),
                },
                body=json.dumps(change).encode() if change else None,
                context=self._trusted() if url.startswith("https") else None,
            )
        except (ValueError, OSError) as error:
            what = "does not answer" if isinstance(error, NoReply) else "cannot be asked"
            raise _Refused(f"the Kubernetes API at {self._where} {what}: {error}") from None
        if reply.status == 409 and change:
            raise _Moved
        if reply.status != 200:
            said = f"{reply.status}: {_told(reply.body)}{_remedy(reply.status)}"
            raise _Refused(f"the Kubernetes API at {self._where} answers {said}")
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(_at(found, "spec", "predictor"), dict):
            raise _Refused(
                f"the Kubernetes API at {self._where} answers {_told(reply.body)!r}, which is no InferenceService"
            )
        return found

    def _authorization(self) -> dict[str, str]:
        """The policy's token, or the pod's, read anew: it is renewed every hour."""
        if self.rules.token is not None:
            return {"Authorization": f"Bearer {expand(self.rules.token, self.environment)}"}
        token = self.account / "token"
        return {"Authorization": f"Bearer {token.read_text('utf-8').strip()}"} if token.is_file() else {}

    def _trusted(self) -> ssl.SSLContext:
        authority = self.account / "ca.crt"
        return ssl.create_default_context(cafile=authority if authority.is_file() else None)

    @property
    def _name(self) -> str:
        return f"the InferenceService {self.rules.namespace}/{self.rules.service}"

    @property
    def _where(self) -> str:
        try:
            return place(expand(self.rules.url, self.environment))
        except ValueError:
            return self.rules.url


def _percent(seen: Mapping[str, Any], arms: tuple[Arm, ...]) -> int:
    """What the newest revision is to be given, by the versions that the annotations name.

    Raises:
        _Refused: When they name none, or others than those that are to answer.
    """
    weights = {arm.version: arm.weight for arm in arms}
    latest, before = (_at(seen, "metadata", "annotations", name) for name in (LATEST, BEFORE))
    told = ", ".join(f"version {arm.version} {arm.weight}%" for arm in arms)
    if not isinstance(latest, str):
        raise _Refused(f"has no annotation {LATEST}; let whoever deploys a revision name its version there")
    wanted = weights.get(latest, 0)
    rest = {version: weight for version, weight in weights.items() if version != latest}
    if wanted < _WHOLE and rest != {before: _WHOLE - wanted}:
        raise _Refused(
            f"the newest revision is version {latest} and the one before it {before or 'not named'} (annotations "
            f"{LATEST} and {BEFORE}), so the ledger's split cannot be made: {told}. Deploy the version that is missing"
        )
    return wanted


def _asked(seen: Mapping[str, Any]) -> int:
    """What the newest revision is asked to be given; without a word it is everything."""
    percent = _at(seen, "spec", "predictor", "canaryTrafficPercent")
    return percent if isinstance(percent, int) and not isinstance(percent, bool) else _WHOLE


def _given(seen: Mapping[str, Any]) -> int | None:
    """What it has, by the status; None: the status does not say."""
    traffic = _at(seen, "status", "components", "predictor", "traffic")
    if not isinstance(traffic, list) or not traffic:
        return None
    newest = _at(seen, "status", "components", "predictor", "latestReadyRevision")
    mine = [
        one
        for one in traffic
        if isinstance(one, dict) and (one.get("latestRevision") or one.get("revisionName") == newest)
    ]
    return sum(int(one.get("percent") or 0) for one in mine)


def _current(seen: Mapping[str, Any]) -> bool:
    """Whether the status is about what is asked for now."""
    observed, asked = _at(seen, "status", "observedGeneration"), _at(seen, "metadata", "generation")
    return isinstance(observed, int) and isinstance(asked, int) and observed >= asked


def _check_ready(seen: Mapping[str, Any]) -> None:
    """See that the newest revision can answer before it is given more.

    Raises:
        _Refused: When it cannot, or the status is of an older revision.
    """
    made, ready = (
        _at(seen, "status", "components", "predictor", name)
        for name in ("latestCreatedRevision", "latestReadyRevision")
    )
    if not made or made != ready or not _current(seen):
        raise _Refused(
            f"its newest revision {made or ''} is not ready (ready: {ready or 'none'}); it gets nothing before"
        )


def _at(seen: Any, *names: str) -> Any:
    for name in names:
        seen = seen.get(name) if isinstance(seen, dict) else None
    return seen


def _told(body: bytes) -> str:
    """The API's own message, where there is one."""
    text = body[:4096].decode("utf-8", "replace")
    try:
        message = _at(json.loads(text), "message")
    except ValueError:
        message = None
    return (message if isinstance(message, str) else text)[:200]


def _remedy(status: int) -> str:
    remedies = {
        401: "; see rollout.router.kserve.token, or the pod's service account",
        403: "; let the service account get and patch inferenceservices",
        404: "; see rollout.router.kserve.service and namespace, and that KServe is installed",
    }
    return remedies.get(status, "")
