"use strict";

// The page: channels on the left, the newest messages of one of them, a line to write, and live updates by long poll.

const RETRY_MS = 1000;
const list = document.getElementById("messages");
const channels = document.getElementById("channels");
const compose = document.getElementById("compose");
const statusLine = document.getElementById("status");
const csrfToken = document.querySelector("[name=csrfmiddlewaretoken]").value;
let current = null;
let loading = 0;

class ApiError extends Error {
    constructor(status, body) {
        super(body.msg || `The server answered ${status}.`);
        this.status = status;
        this.code = body.code;
    }
}

async function api(method, path, fields = {}) {
    const encoded = new URLSearchParams();
    for (const [name, value] of Object.entries(fields)) {
        encoded.set(name, typeof value === "string" ? value : JSON.stringify(value));
    }
    const options = {method, headers: {"X-CSRFToken": csrfToken}};
    let url = `/json/${path}`;
    if (method === "GET") {
        url += `?${encoded}`;
    } else {
        options.body = encoded;
    }
    const response = await fetch(url, options);
    const body = await response.json().catch(() => ({}));
    if (!response.ok) {
        throw new ApiError(response.status, body);
    }
    return body;
}

function show(message) {
    if (document.getElementById(`message-${message.id}`)) {
        return;
    }
    const item = document.createElement("li");
    item.id = `message-${message.id}`;
    item.dataset.id = message.id;
    const about = document.createElement("div");
    about.className = "about";
    const time = new Date(message.timestamp * 1000).toLocaleTimeString();
    about.textContent = `${message.sender_full_name} · ${message.subject} · ${time}`;
    const content = document.createElement("div");
    content.innerHTML = message.content; // the server escapes what people write
    item.append(about, content);
    list.append(item);
    list.scrollTop = list.scrollHeight;
}

async function open(channel) {
    if (current !== channel.stream_id) {
        list.replaceChildren();
    }
    current = channel.stream_id;
    loading += 1;
    const mine = loading;
    for (const button of channels.children) {
        button.setAttribute("aria-current", String(button.dataset.id === String(current)));
    }
    const narrow = [{operator: "channel", operand: current}];
    const found = await api("GET", "messages", {anchor: "newest", num_before: 100, num_after: 0, narrow});
    if (mine === loading) {
        // What arrived by event since the server looked is newer than all that it found.
        const newest = found.messages.at(-1)?.id ?? 0;
        const arrived = [...list.children].filter((item) => Number(item.dataset.id) > newest);
        list.replaceChildren();
        found.messages.forEach(show);
        list.append(...arrived);
        list.scrollTop = list.scrollHeight;
    }
}

function listChannels(subscriptions) {
    channels.replaceChildren();
    for (const channel of subscriptions) {
        const button = document.createElement("button");
        button.textContent = `# ${channel.name}`;
        button.dataset.id = channel.stream_id;
        button.addEventListener("click", () => open(channel).catch(complain));
        channels.append(button);
    }
}

function complain(error) {
    if (error.status === 401) {
        window.location.assign("/login/");
    }
    statusLine.textContent = error.message;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function follow() {
    const registered = await api("POST", "register", {
        event_types: ["message", "subscription"],
        fetch_event_types: ["subscription"],
        apply_markdown: true,
    });
    listChannels(registered.subscriptions);
    const opened = registered.subscriptions.find((c) => c.stream_id === current) || registered.subscriptions[0];
    if (opened) {
        await open(opened);
    }
    statusLine.textContent = "";
    let last = registered.last_event_id;
    let failed = false;
    for (;;) {
        let answer;
        try {
            // After a failure the first answer comes at once, so that the error does not stay until something happens.
            const fields = {queue_id: registered.queue_id, last_event_id: last, dont_block: failed};
            answer = await api("GET", "events", fields);
            statusLine.textContent = "";
            failed = false;
        } catch (error) {
            if (error.code === "BAD_EVENT_QUEUE_ID") {
                return;
            }
            failed = true;
            complain(error);
            await pause(RETRY_MS);
            continue;
        }
        for (const event of answer.events) {
            last = Math.max(last, event.id);
            if (event.type === "message" && event.message.stream_id === current) {
                show(event.message);
            } else if (event.type === "subscription") {
                return; // the simplest way to have the right channels is to start again
            }
        }
    }
}

async function run() {
    for (;;) {
        try {
            await follow();
        } catch (error) {
            complain(error);
        }
        await pause(RETRY_MS);
    }
}

compose.addEventListener("submit", async (event) => {
    event.preventDefault();
    const {topic, content, send} = compose.elements;
    const text = content.value;
    send.disabled = true; // or each further Enter sends it again while the server is slow
    try {
        await api("POST", "messages", {type: "stream", to: [current], topic: topic.value, content: text});
        if (content.value === text) {
            content.value = "";
        }
        statusLine.textContent = "";
    } catch (error) {
        complain(error);
    } finally {
        send.disabled = false;
    }
});

run();
