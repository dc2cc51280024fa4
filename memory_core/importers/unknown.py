"""Counts the fields of a transcript that no format knows, so that none is lost in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from memory_core.importers.log import Log

__all__ = ["count_unknown", "count_unknown_beside", "count_unknown_names"]

# What may have anything in it, and is kept whole or is bookkeeping.
_FREE_NAMES = """
additional_kwargs args arguments input inputs kwargs metadata model_response outputs parameters rawInput
result state toolUseResult
"""
# Every name that a format reads, or knows to be bookkeeping.
_KNOWN_NAMES = """
accumulated_cost accuracy action action_id actions additional_kwargs agent agent_class agent_cost
agent_info agent_state agent_states agent_type aiTitle annotations answer api_calls approval_policy args
arguments arrayValue array_value assistant attachments attributes audio audios avg body boolValue
bool_value branch bytesValue bytes_value cache_control cache_creation_input_tokens cached
cached_input_tokens call_id candidates category cause chatId chat_history child_runs choices chosen
cli_version code codeExecutionResult command communicate_checks completed completed_at completed_samples
completion completion_tokens config confirmation_state container content contents context_management
continued_trajectory_ref conversation_id conversations cost cost_limit cost_usd createTime created
createdAt created_at custom custom_id cwd data dataset db_check db_match db_reward delta description
detail displayContent displayName domain domain_name dotted_order doubleValue double_value duration
encrypted_content endTimeUnixNano end_time end_time_unix_nano env environment environment_info
environment_type epoch error errorText eval eval_id evaluation_criteria event eventName event_id
event_name events example executableCode execution_time exit_code exit_status explanation extra extra_info
extras feedback_stats file_path file_urls final_metrics final_thought finish_reason forked_from
forked_from_id format framework from function functionCall functionResponse function_call function_name
function_response gen_ai generations ghost_commit git gitBranch git_commit git_patch github_url half
hidden history id image_urls images implementation includes index info inlineData input input_tokens
inputs instance_cost instance_id instruction instructions instrumentationLibrarySpans intValue int_value
invalid_tool_calls invocation_params isSidechain is_copied_context is_demo is_error key kind known_info
kvlistValue kvlist_value kwargs language lastUpdated leafUuid limit llm llm_config llm_context llm_message
llm_metrics llm_output logRecords log_records ls_model_name max_errors max_steps message messageId
message_thread message_type messages met metadata method metrics mimeType mime_type mini_version mode
model modelId modelInfo modelVersion model_name model_provider model_response model_stats model_type
model_usage models_usage name notebook_path notes num_trials object observation observedTimeUnixNano
openhands_version operation originator outcome output output_tokens outputs params parentSpanId parentUuid
parent_run_id parent_span_id parent_thread_id parse_error parts patch path payload persona phase plan
policy post problem_statement projectHash prompt promptFeedback prompt_tokens provider providerId purpose
queries query r_actions rawInput raw_output reason reason_for_call reasoning reasoning_content refusal
rejected rejection_reason replay_config reply repo repo_name report repository_url request request_id
requestor resolved resource resourceLogs resourceSpans resource_logs resource_spans response responseId
response_metadata result resultDisplay results return_code returncode reward reward_basis reward_info role
run_id run_type safetyRatings samples schema_version scope scopeLogs scopeSpans scope_logs scope_spans
score scorer scores security_risk seed server_label service sessionId session_id session_name simulations
snapshot source source_call_id spanId span_id spans startTime startTimeUnixNano start_time
start_time_unix_nano started_at state stats status status_code step_id step_limit steps stop_details
stop_reason stop_sequence stringValue string_value subagent subagent_trajectories subagent_trajectory_ref
subject submission success summary swe_agent_version system systemInstruction system_instruction
system_instructions system_prompt tags target task task_completed task_id task_instructions task_result
task_type tasks termination_reason test_result text thinking thinking_blocks thought thoughts thread_id
thread_spawn time timeUnixNano timeout timestamp timing title token_usage tokens tokens_received
tokens_sent tool toolCallId toolCalls toolInvocation toolInvocations toolName toolUseResult tool_call
tool_call_id tool_call_ids tool_call_metadata tool_calls tool_messages tool_name tool_responses
tool_use_id tools total totalTokens totalUsage total_calls_in_response total_completion_tokens total_cost
total_cost_usd total_prompt_tokens total_samples total_steps total_time total_token_usage total_tokens
traceId trace_id traceback traj trajectory trajectory_format trajectory_id transcript trial ts turn_idx
type url usage usageMetadata usage_metadata userType user_cost user_id user_info user_scenario uuid value
values verdict version videos wait_for_response weight working_start working_time
"""
_FREE, _KNOWN = frozenset(_FREE_NAMES.split()), frozenset(_KNOWN_NAMES.split())


def count_unknown(value: object, log: Log) -> None:
    """Count the fields with a text, a list or an object in them whose names no format knows.

    Parts of a message that have such fields are kept as JSON nevertheless; it is not told whether they are.
    """
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, list):
            waiting += [
                item for item in cast("list[object]", inside) if isinstance(item, dict | list)
            ]
        elif isinstance(inside, dict):
            waiting += _fields(cast("dict[str, Any]", inside), log)


def count_unknown_beside(
    item: Mapping[str, Any], log: Log, known: Container[str], read: Container[str]
) -> None:
    """As ``count_unknown``, for an object of which a format says itself what it knows.

    Args:
        item: the object.
        log: gets the counts.
        known: names that the format reads, or knows to be bookkeeping.
        read: those of them in which nothing is left to count.
    """
    for name, value in item.items():
        if name not in known:
            if value and isinstance(value, str | list | dict):
                log.unknown(name)
        elif name not in read and isinstance(value, list | dict):
            count_unknown(cast("object", value), log)


def count_unknown_names(item: Mapping[str, Any], log: Log) -> None:
    """As ``count_unknown``, without a look inside of the fields: it costs next to nothing."""
    if not _KNOWN.issuperset(item):
        _fields(item, log)


def _fields(item: Mapping[str, Any], log: Log) -> list[object]:
    inside: list[object] = []
    for name, value in item.items():
        if not isinstance(value, str | list | dict) or not value:
            continue
        if name not in _KNOWN:
            log.unknown(name)
        elif name not in _FREE and not isinstance(value, str):
            inside.append(cast("object", value))
    return inside
