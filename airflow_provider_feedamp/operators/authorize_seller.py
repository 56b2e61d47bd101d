"""The task in which a person has a seller authorise the marketplace, inside Airflow (3.1 and later)."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import ConfigurationError, InputError, TokenError
from airflow_provider_feedamp.operators.base import FeedAmpOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import BaseNotifier, Context
    from airflow.sdk.execution_time.hitl import HITLUser

    from airflow_provider_feedamp.hooks.authorisation import Authorisation

#: What the person can answer. One form serves all questions of a try: Airflow keeps the first one's words.
PASTED = "The redirect URL is pasted"
RIGHT = "It is the right account"
WRONG = "It is another account"
#: What the form asks for, and the key of the XCom with the question that the account raises.
FIELD, QUESTION = "redirect_url", "question"
#: How long the consent page works where no time-out ends the wait before.
_LONGEST = timedelta(days=30)


class FeedAmpAuthorizeSellerOperator(FeedAmpOperator):
    """Ask a person to have a seller authorise the marketplace in a browser, and store the seller's tokens.

    It needs Airflow 3.1 or later, and waits as the human-in-the-loop operators of the standard provider do:
    the task shows the URL of FeedAMP's consent page among Airflow's required actions, and the person pastes
    the URL that the browser came back to. The code in it is exchanged at once. An account that has an order
    which was imported for the seller before is stored. For any other one the task asks again in the same
    form: what was found is in its log, in its XCom ``question`` and in what notifiers get. Nothing of the
    seller is replaced before the answer. If the code cannot be exchanged, the person is asked to agree once
    more. Further parameters: ``feedamp_conn_id`` and ``seller``, see :class:`.FeedAmpOperator`.

    :param redirect_url: Where FeedAMP sends the browser back to (templated). Nothing needs to answer there:
        the person copies the URL from the address bar. Default ``http://127.0.0.1/``.
    :param response_timeout: How long the task waits for each answer. Default: without an end; the consent
        page then works for 30 days.
    :param notifiers: Are called for each question; ``{{ task.subject }}`` and ``{{ task.body }}`` have its
        words. Default: none.
    :param assigned_users: Who may answer, as ``{"id": ..., "name": ...}``. Default: everybody who may act in
        the DAG.
    :return: ``seller``, ``expires_at`` (ISO 8601, UTC), ``renewed`` (True), ``generation``; never the answer.
    """

    template_fields: Sequence[str] = ("redirect_url", *FeedAmpOperator.template_fields)
    ui_color = "#e8f4ec"

    def __init__(
        self,
        *,
        redirect_url: str = "http://127.0.0.1/",
        response_timeout: timedelta | None = None,
        notifiers: Sequence[BaseNotifier] | BaseNotifier | None = None,
        assigned_users: HITLUser | list[HITLUser] | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.redirect_url = redirect_url
        self.response_timeout = response_timeout
        self.notifiers = notifiers
        self.assigned_users = assigned_users
        self.subject = ""
        self.body = ""

    def execute_complete(self, context: Context, event: Mapping[str, Any], state: str, until: float) -> Any:
        """Go on with a person's answer."""
        from airflow_provider_feedamp.hooks.feedamp import task_errors

        with task_errors():
            return self._answered(context, event, state, until)

    def _perform(self, context: Context) -> Any:
        _check_airflow(self.seller, self.feedamp_conn_id)
        seconds = (self.response_timeout or _LONGEST).total_seconds()
        started = self._authorisation(context).start(self.redirect_url, seconds)
        seller = self._hook().seller
        self.subject = f"Authorise FeedAMP seller {seller!r}"
        self.body = (
            f"1. Open [FeedAMP's consent page]({started.url}) in the browser of seller {seller!r}, or send "
            "the seller its address. Log in there with the seller's own account, and agree.\n"
            f"2. The browser goes to `{self.redirect_url}`; it does not matter if no page shows. Copy the "
            f"whole address from the address bar, paste it below, and choose *{PASTED}*.\n"
            "3. If this form comes back, the task's log and its XCom `question` say why. If they ask whether "
            f"it is the right account, choose *{RIGHT}*, or *{WRONG}* to drop the new tokens and to begin "
            f"again at 1.\n\nThe address of the consent page:\n\n`{started.url}`"
        )
        self._ask(context, started.state, started.expires_at.timestamp())

    def _answered(self, context: Context, event: Mapping[str, Any], state: str, until: float) -> Any:
        if "error" in event:
            # Time-outs and the like, in the words and classes of the standard provider.
            self._form().process_trigger_event_error(dict(event))
        (chosen,) = event["chosen_options"]
        authorisation = self._authorisation(context)
        try:
            if chosen == RIGHT:
                return self._stored(authorisation.confirm(state))
            if chosen == WRONG:
                authorisation.discard(state, again=True)
                question = "The new tokens were dropped. Agree once more, with the account of the seller."
            else:
                found = authorisation.redeem(str((event["params_input"] or {}).get(FIELD) or ""))
                if found.description is not None:
                    return self._stored(found.description)
                state = found.state  # of an earlier try, if that one's redirect was pasted
                question = f"{found.question} Answer with {RIGHT!r} or {WRONG!r}."
        except (InputError, TokenError) as error:
            # Also when the store is away: a person has come for this, and tokens may wait for the answer.
            if datetime.now(UTC).timestamp() >= until:
                raise
            question = str(error)
        self.log.warning("A person has to answer again: %s", question)
        context["ti"].xcom_push(QUESTION, question)
        self.subject = f"FeedAMP seller {self._hook().seller!r} is not authorised yet"
        self.body = question
        self._ask(context, state, until)

    def _stored(self, description: dict[str, Any]) -> dict[str, Any]:
        self.log.info("Seller %r is authorised until a person withdraws it.", description["seller"])
        return description

    def _ask(self, context: Context, state: str, until: float) -> None:
        """Wait for an answer, as the standard provider does on this Airflow."""
        form = self._form()
        try:
            # Not as a task of its own, which Airflow warns of.
            inspect.unwrap(type(form).execute)(form, context)
        except BaseException as waits:  # each Airflow signals in its own way that a task waits
            if hasattr(waits, "method_name"):
                setattr(waits, "kwargs", {"state": state, "until": until})  # noqa: B010 - on no BaseException
            if (trigger := getattr(waits, "trigger", None)) is not None:  # before Airflow 3.3
                from airflow_provider_feedamp.triggers.polling import RedirectTrigger

                setattr(waits, "trigger", RedirectTrigger(**trigger.serialize()[1]))  # noqa: B010
            raise

    def _form(self) -> Any:
        from airflow.providers.common.compat.sdk import Param
        from airflow.providers.standard.operators.hitl import HITLOperator

        timeout = "response_timeout"
        if timeout not in inspect.signature(HITLOperator.__init__).parameters:  # before standard 1.13
            timeout = "execution_timeout"
        text = "The whole address from the browser's address bar, after the seller has agreed."
        kwargs: dict[str, Any] = {timeout: self.response_timeout}
        return HITLOperator(
            task_id=self.task_id,
            subject=self.subject,
            body=self.body,
            options=[PASTED, RIGHT, WRONG],
            params={FIELD: Param(None, type=["null", "string"], title="Redirect URL", description=text)},
            notifiers=self.notifiers,
            assigned_users=self.assigned_users,
            **kwargs,
        )

    def _authorisation(self, context: Context) -> Authorisation:
        from airflow_provider_feedamp.hooks.authorisation import Authorisation

        ti = context["ti"]
        return Authorisation(
            self._hook(), f"task {ti.dag_id} {ti.task_id} {ti.run_id} {getattr(ti, 'map_index', -1)}"
        )


def _check_airflow(seller: str | None, conn_id: str) -> None:
    try:
        from airflow.providers.standard.operators import hitl as _  # noqa: F401
    except (
        Exception
    ) as error:  # an ImportError, or the standard provider's own for an Airflow that is too old
        named = repr(seller) if seller else "SELLER"
        raise ConfigurationError(
            "A task can authorise a seller from Airflow 3.1 on, with apache-airflow-providers-standard. "
            f"On this Airflow run `feedamp sellers authorize {named} --conn-id {conn_id}` where Airflow is "
            "configured."
        ) from error
