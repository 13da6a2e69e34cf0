// One conversation: outcome, why, all messages with their marks, and the facts.

import type { ComponentChildren } from "preact";
import type { Conversation, Judgement, Message, Outcome } from "./data";
import type { Different } from "./diff";
import { OUTCOMES, reason } from "./reason";
import { type Mark, Marked, visible } from "./text";

/** Messages that all columns share, folded above them. */
export function Opening({ messages }: { messages: Message[] }) {
  if (messages.length === 0) return null;
  return (
    <details class="opening">
      <summary>
        {messages.length} {messages.length === 1 ? "message" : "messages"} before, the same in all
      </summary>
      {messages.map((message) => (
        <MessageBlock message={message} marks={[]} response={false} thoughts={false} folder="" />
      ))}
    </details>
  );
}

/** Links to the draws of a question. */
export function Draws(props: { draws: number[]; chosen: number; addressOf(draw: number): string }) {
  return (
    <>
      {" · draw "}
      {props.draws.map((draw) => (
        <a
          class={draw === props.chosen ? "draw chosen" : "draw"}
          aria-current={draw === props.chosen ? "true" : undefined}
          href={props.addressOf(draw)}
        >
          {draw}
        </a>
      ))}
    </>
  );
}

export function LeftOut() {
  return <p class="nothing">These conversations exceed the size limit of the explorer; read them in the results folder.</p>;
}

interface Shown {
  conversation: Conversation;
  outcome: Outcome;
  truncated: boolean;
  gold: string | null;
  draw: number;
  draws: number;
  folder: string;
}

interface Props extends Shown {
  head: ComponentChildren;
  /** How many messages are the same in all columns and shown above them. */
  common: number;
  different: Different;
  /** The column that differences are marked against; null: this one is what the others are marked against. */
  base: string | null;
  thoughts: boolean;
  children?: ComponentChildren;
}

export function ConversationColumn(props: Props) {
  const { conversation, outcome, truncated, gold } = props;
  return (
    <article class="column" aria-label={props.folder}>
      <header>
        {props.head}
        <p class="verdict">
          <span class={`badge o-${outcome}`}>{OUTCOMES[outcome]}</span>
          {truncated && <span class="badge cut">cut off</span>}
        </p>
        <p class="reason">{visible(reason(outcome, gold, truncated, conversation))}</p>
        {props.different === "too different" && (
          <p class="quiet">Shares less than a third of its words with {visible(props.base ?? "")}: differences are not marked.</p>
        )}
        {props.different === "too long" && <p class="quiet">Too long to mark its differences.</p>}
      </header>
      {conversation.messages.slice(props.common).map((message, place) => (
        <MessageBlock
          message={message}
          marks={marksOf(props, place + props.common)}
          response={place + props.common === conversation.response}
          thoughts={props.thoughts}
          folder={props.folder}
        />
      ))}
      {props.children}
      <Judgements judgements={conversation.judgements} />
      <Facts {...props} />
    </article>
  );
}

function marksOf(props: Props, place: number): Mark[] {
  const { tone, question, answer, response } = props.conversation;
  const marks: Mark[] = [];
  if (tone?.[0] === place) marks.push({ start: tone[1], end: tone[2], kind: "tone", title: "text of the variant" });
  if (question?.[0] === place) marks.push({ start: question[1], end: question[2], kind: "question" });
  if (answer?.[0] === place) {
    const kind = `answer a-${props.outcome}`;
    marks.push({ start: answer[1], end: answer[2], kind, title: "extracted answer" });
  }
  if (response === place) {
    const title = props.base === null ? "differs in another column" : `differs from ${props.base}`;
    for (const [start, end] of typeof props.different === "string" ? [] : props.different) {
      marks.push({ start, end, kind: "different", title });
    }
  }
  return marks;
}

export function MessageBlock(props: {
  message: Message;
  marks: Mark[];
  response: boolean;
  thoughts: boolean;
  folder: string;
}) {
  const { message, marks, response } = props;
  const { text, thought } = message;
  return (
    <section class={`message role-${known(message.role)}${response ? " response" : ""}`}>
      <h4>{visible(message.role)}</h4>
      {message.reasoning && <Thought open={props.thoughts} long={scrolls(message.reasoning)}>{visible(message.reasoning)}</Thought>}
      {thought > 0 && (
        <Thought open={props.thoughts} long={scrolls(text)}>
          <Marked text={text} marks={marks} end={thought} />
        </Thought>
      )}
      {message.role === "tool" && text ? (
        <Folded name="result" text={text} />
      ) : text.length > thought || !message.calls.length ? (
        <div class="text" dir="auto" tabIndex={scrolls(text) ? 0 : undefined}>
          {text.length > thought ? <Marked text={text} marks={marks} start={thought} /> : <em class="quiet">empty</em>}
        </div>
      ) : null}
      {message.calls.map(([name, given]) => (
        <Folded name={visible(name)} text={given} />
      ))}
      {message.leftOut > 0 && (
        <p class="quiet">
          … {message.leftOut.toLocaleString("en")} more characters are in {props.folder}/trajectory.jsonl
        </p>
      )}
    </section>
  );
}

/** The arguments of a tool call, or the result of a tool. */
function Folded(props: { name: string; text: string }) {
  return (
    <details class="call">
      <summary>{props.name}</summary>
      <pre tabIndex={scrolls(props.text) ? 0 : undefined}>{visible(props.text)}</pre>
    </details>
  );
}

/** Whether a text may be higher than its box, which the keyboard then has to reach. */
export function scrolls(text: string): boolean {
  return text.length > 300 || text.split("\n").length > 6;
}

function Thought(props: { open: boolean; long: boolean; children: ComponentChildren }) {
  return (
    <details class="thought" open={props.open}>
      <summary>thought</summary>
      <div class="text" dir="auto" tabIndex={props.long ? 0 : undefined}>
        {props.children}
      </div>
    </details>
  );
}

function known(role: string): string {
  return ["system", "user", "assistant", "tool"].includes(role) ? role : "other";
}

function Judgements({ judgements }: { judgements: Judgement[] }) {
  if (!judgements.length) return null;
  return (
    <section class="judgements">
      <h4>judgements</h4>
      {judgements.map(([label, model, value, why]) => (
        <p dir="auto">
          {visible(label)}: <b>{value ? visible(value) : "no value"}</b>
          {why && <> — {visible(why)}</>} <small class="quiet">{visible(model)}</small>
        </p>
      ))}
    </section>
  );
}

function Facts(props: Props) {
  const facts = props.conversation.facts;
  const lines: [string, string][] = [];
  const add = (label: string, value: string | number | boolean | undefined, unit = "") => {
    if (value !== undefined && value !== "") lines.push([label, `${value}${unit}`]);
  };
  const prompt = facts.prompt_tokens === undefined ? "" : ` after a prompt of ${facts.prompt_tokens}`;
  if (facts.completion_tokens !== undefined) add("tokens", `${facts.completion_tokens}${prompt}`);
  add("of thought", facts.thought_tokens);
  if (facts.seconds !== undefined) add("time", `${Number(facts.seconds).toFixed(2)} s`);
  add("started", String(facts.started ?? "").replace("T", " ").replace(/\.\d+\+00:00$|\+00:00$/, " UTC"));
  add("worker", [facts.worker, facts.hardware].filter(Boolean).join(", "));
  if (Number(facts.attempts ?? 1) > 1) add("attempts", facts.attempts);
  add("draw", props.draws > 1 ? `${props.draw} of ${props.draws}` : 1);
  const sampling = [facts.temperature === undefined ? "" : `temperature ${facts.temperature}`];
  if (facts.seed !== undefined) sampling.push(`seed ${facts.seed}`);
  add("sampling", sampling.filter(Boolean).join(", "));
  add("finish", facts.finish);
  add("in the form asked for", facts.compliant === undefined ? undefined : facts.compliant ? "yes" : "no");
  if (facts.log_p_gold !== undefined) add("log p of gold", Number(facts.log_p_gold).toFixed(2), " nats");
  if (facts.perplexity !== undefined) add("perplexity", Number(facts.perplexity).toPrecision(3));
  return (
    <dl class="facts">
      {lines.map(([label, value]) => (
        <>
          <dt>{label}</dt>
          <dd>{visible(value)}</dd>
        </>
      ))}
      <dt>files</dt>
      <dd>
        <a href={`../${props.folder.split("/").map(encodeURIComponent).join("/")}/trajectory.jsonl`}>
          {visible(props.folder)}
        </a>
      </dd>
    </dl>
  );
}
