"""A launch: from nothing to a cluster.yaml, or back to nothing."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.aws.console_keys import ConsoleKeys, read_consoles
from cluster.aws.cost import check_price, cost_per_hour
from cluster.aws.files import Plan, check_files, forget, write_cluster
from cluster.aws.instances import (
    Instance,
    list_instances,
    newest_image,
    run_instances,
    speaks_ssh,
    wait_for_ssh,
    wait_until_ready,
)
from cluster.aws.network import create_placement_group, create_security_group, find_network
from cluster.aws.removal import remove_all
from cluster.aws.service import Aws
from cluster.aws.signals import on_stop_signals
from cluster.aws.state import LaunchState, begin_state, read_state, write_state
from cluster.aws.tags import LAUNCH_TAG
from cluster.aws.waiting import Patience, Talk
from cluster.errors import ClusterError


@dataclass(frozen=True)
class Launched:
    """Instances that run, answer, and stand in cluster.yaml."""

    launch: str
    instances: Sequence[Instance]
    consoles: Mapping[str, ConsoleKeys]


@dataclass(frozen=True)
class Launcher:
    """Launches one plan; ``answers`` says whether an address speaks SSH, ``talk`` takes a line for the user."""

    aws: Aws
    plan: Plan
    patience: Patience
    talk: Talk
    answers: Callable[[str], bool] = speaks_ssh

    def launch(self) -> Launched:
        """Start the instances and write cluster.yaml; on any failure or interrupt remove them again.

        Raises ClusterError, and KeyboardInterrupt for each signal that asks to stop.
        """
        check_files(self.plan)
        check_price(self.plan.settings, self.aws.region)
        self._refuse_company()
        image, vpc = newest_image(self.aws, self.plan.settings), find_network(self.aws, self.plan.settings)
        self.aws.call("describe_key_pairs", KeyNames=[self.plan.settings.key_pair])
        self.talk(f"image: {image['ImageId']} {image['Name']}, of {image['CreationDate']}")
        self.talk(cost_per_hour(self.plan.settings, self.aws.region))
        with on_stop_signals(signal.default_int_handler):
            state = self._begin()
            is_up = False
            try:
                launched = self._bring_up(state, image, vpc)
                is_up = True
            finally:
                if not is_up:
                    with on_stop_signals(signal.SIG_IGN):
                        self._give_up(state)
        return launched

    def _refuse_company(self) -> None:
        """One launch of a name at a time. Raises ClusterError naming what is there, and how to end it."""
        if read_state(self.plan.state_file) is not None:
            raise ClusterError(
                "an earlier launch has not been terminated", where=str(self.plan.state_file), fix=self.plan.terminate
            )
        if alive := [item for item in list_instances(self.aws, self.plan.settings.name) if item.is_alive]:
            raise ClusterError(
                f"instances of the name {self.plan.settings.name} are alive",
                where=self.aws.where,
                received=", ".join(f"{item.instance} {item.state}" for item in alive),
                fix=f"{self.plan.terminate}; or, if they are somebody else's, another name",
            )

    def _begin(self) -> LaunchState:
        state = LaunchState(
            name=self.plan.settings.name,
            launch=uuid.uuid4().hex[:12],
            region=self.aws.region,
            account=self.aws.account,
            started_at=datetime.now(UTC),
            cluster_file=self.plan.cluster_file.resolve(),
        )
        begin_state(self.plan.state_file, state)
        return state

    def _bring_up(self, state: LaunchState, image: dict[str, Any], vpc: str) -> Launched:
        aws, settings, state_file = self.aws, self.plan.settings, self.plan.state_file
        security_group = create_security_group(aws, settings, state.launch, vpc)
        placement_group = create_placement_group(aws, settings, state.launch)
        # Written before the call: whatever becomes of it, instances may exist.
        state = write_state(state_file, state.model_copy(update={"num_asked": settings.num_instances}))
        ids = run_instances(aws, settings, state.launch, image, security_group, placement_group)
        write_state(state_file, state.model_copy(update={"instance_ids": ids}))
        instances = wait_until_ready(aws, state, ids, self.patience, self.talk)
        wait_for_ssh(instances, settings.ssh_from, self.answers, self.patience)
        consoles = read_consoles(aws, instances, self.patience, self.talk)
        write_cluster(self.plan, state.launch, instances, consoles)
        return Launched(state.launch, instances, consoles)

    def _last_state(self, first: LaunchState) -> LaunchState:
        """What is written down; where that is lost, the worst that may be."""
        with suppress(ClusterError):
            if (state := read_state(self.plan.state_file)) is not None:
                return state
        return first.model_copy(update={"num_asked": self.plan.settings.num_instances})

    def _give_up(self, first: LaunchState) -> None:
        """Remove what a failed launch has made; what cannot be removed is told with the commands that do it."""
        self.talk("removing what this launch has made; until that is done, signals to stop are ignored")
        state = self._last_state(first)
        try:
            remaining = remove_all(self.aws, state.name, state, self.patience, self.talk)
        except ClusterError as error:
            remaining = [f"not known: {error}"]
        if not remaining:
            forget(self.plan.state_file, state)
            self.talk("nothing is left behind")
            return
        for line in remaining:
            self.talk(f"LEFT BEHIND in {self.aws.where}: {line}")
        if state.num_asked:
            known = f"instances {' '.join(state.instance_ids)}" if state.instance_ids else "instances, if any came up,"
            self.talk(f"LEFT BEHIND: {known} with the tag {LAUNCH_TAG}={state.launch} COST MONEY until you run")
        self.talk(f"    {self.plan.terminate}")
        if state.instance_ids:
            ids = " ".join(state.instance_ids)
            self.talk(f"or  aws ec2 terminate-instances --region {self.aws.region} --instance-ids {ids}")
