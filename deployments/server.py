"""The Serve deployment around one engine: Ray's own `LLMServer`, with a door of its own to the front."""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import urlsplit

import ray
import vllm
from ray import serve
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from deployments import emulation
from deployments.endpoint import Endpoint
from deployments.engine_progress import cause_of
from deployments.front_link import Announcement, FrontLink, Report, now_s
from deployments.governance.access import ApiKeyGate
from deployments.governance.limit_gate import LimitGate
from deployments.governance.metering import meter_engine
from deployments.node_init import NoSeparateDownload
from deployments.rank_map import RankPlan, ReportedRank, read_reports
from deployments.reach import check_reach
from deployments.watch import Watch, end_this_process
from deployments.worker_extension import node_name

logger = logging.getLogger(__name__)

# Serve ends a replica after its graceful shutdown time whatever happens; leave the engine a moment of that.
ENGINE_STOP_S = 10.0
RANKS_ANSWER_S = 60.0


class MoEServer(LLMServer):
    """One replica: engine, HTTP server and announcement.

    The engine's own FastAPI app is served straight from here, behind the access rules; Serve starts, watches,
    replaces and stops the replica, but no request passes through its proxies or handles.
    """

    # Serve awaits an asynchronous constructor, as Ray's own LLMServer has one.
    async def __init__(  # type: ignore[misc]
        self,
        llm_config: dict[str, Any],
        *_siblings: Any,
        aliases: list[str],
        control_url: str,
        auth: bool,
        plan: RankPlan | None = None,
    ) -> None:
        context = serve.get_replica_context()
        self._report = Report(control_url, context.app_name, context.replica_id.unique_id)
        self._report.to_environment()
        try:
            self._watch = Watch(
                _reachable_host(control_url),
                node_name(),
                vllm.__version__,
                self._give_up,
                plan.nodes if plan else {},
            )
            self._watch.start()
            config = LLMConfig(
                **llm_config,
                callback_config={"callback_class": NoSeparateDownload},
                # vLLM's own Prometheus metrics, at the replica's /metrics; not a second set through Ray.
                log_engine_metrics=False,
            )
            if plan:
                await check_reach(set(plan.nodes.values()))
            await super().__init__(config)
            ranks = await self._check_ranks(plan) if plan else ()
            told = tuple({**rank.model_dump(), "replica": plan.replica if plan else 0} for rank in ranks)
            await self._open(config, aliases, control_url, auth, told)
        except BaseException as error:
            if (watch := getattr(self, "_watch", None)) is not None:
                watch.end()
            self._report.tell("failed", cause=cause_of(error))
            raise
        self._watch.serving()
        self._report.tell("serving")

    def _give_up(self, what: str) -> None:
        """The engine is lost (called from the watch's thread): tell, leave the front, and let Serve start anew."""
        self._report.tell("failed", cause=what)
        self._report.withdraw()
        logger.error("%s; ending this replica with all its ranks", what)
        end_this_process()

    async def _check_ranks(self, plan: RankPlan) -> tuple[ReportedRank, ...]:
        """Every rank's account of itself, held against the plan. Raises `RuntimeError` naming the first wrong rank."""
        reported = read_reports(await self.engine._engine_client.collective_rpc("report_rank", timeout=RANKS_ANSWER_S))
        found = plan.compare(reported)
        self._report.tell("ranks", wrong=found.wrong, odd=found.odd)
        if found.wrong:
            raise RuntimeError(f"the ranks are not where they were planned: {found.wrong[0]}")
        return reported

    async def _open(
        self, llm_config: LLMConfig, aliases: list[str], control_url: str, auth: bool, ranks: tuple[dict[str, Any], ...]
    ) -> None:
        """Serve the engine's app on a port of our own and tell the front."""
        meter_engine(self.engine._engine_client)
        app = LimitGate(await self.engine.build_asgi_app(), lambda: self._link.policy, lambda: self._link.accounts)
        names = (llm_config.model_id, *aliases)
        models = self.engine._oai_models
        models.base_model_paths += [type(models.base_model_paths[0])(alias, alias) for alias in aliases]
        self._endpoint = Endpoint(
            ApiKeyGate(app, lambda: self._link.policy, names) if auth else app, _reachable_host(control_url)
        )
        self._link = FrontLink(
            control_url,
            Announcement(
                deployment=self._report.deployment,
                replica=self._report.replica,
                names=names,
                host=self._endpoint.host,
                port=self._endpoint.port,
                auth=auth,
                max_model_len=self.engine._engine_client.model_config.max_model_len,
                created=now_s(),
                ranks=ranks,
                rehearsal=emulation.is_on(),
            ),
            load=lambda: self._endpoint.in_flight,
        )
        await self._endpoint.start()
        await self._link.start()

    async def __del__(self) -> None:
        """Leave the front, finish what was begun, then stop the engine's processes (Serve awaits this)."""
        started = time.monotonic()
        if (watch := getattr(self, "_watch", None)) is not None:
            watch.end()
        if (link := getattr(self, "_link", None)) is not None:
            await link.leave()
            budget_s = self._llm_config.deployment_config.get("graceful_shutdown_timeout_s", 20) - ENGINE_STOP_S
            await self._endpoint.stop(budget_s - (time.monotonic() - started))
            await link.close()
        engine = getattr(self, "engine", None)
        if engine is not None:
            await engine.shutdown()
            if (client := getattr(engine, "_engine_client", None)) is not None:
                client.shutdown()


def _reachable_host(control_url: str) -> str:
    """Where the front reaches this replica: loopback if the front is on this machine, else the node's own address."""
    front_host = urlsplit(control_url).hostname or ""
    return "127.0.0.1" if front_host in ("127.0.0.1", "localhost") else str(ray.util.get_node_ip_address())
