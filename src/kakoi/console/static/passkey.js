// Passkeys: a form with data-passkey asks the server for options, the authenticator for an answer, and sends it as a form.
"use strict";
(() => {
  const bytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
  };
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const ids = (list) => (list || []).map((entry) => ({ ...entry, id: bytes(entry.id) }));

  const create = async (options) => {
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        user: { ...options.user, id: bytes(options.user.id) },
        excludeCredentials: ids(options.excludeCredentials),
      },
    });
    return {
      id: made.id, rawId: text(made.rawId), type: made.type, clientExtensionResults: {},
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
      },
    };
  };
  const get = async (options) => {
    const made = await navigator.credentials.get({
      publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: ids(options.allowCredentials) },
    });
    return {
      id: made.id, rawId: text(made.rawId), type: made.type, clientExtensionResults: {},
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        authenticatorData: text(made.response.authenticatorData),
        signature: text(made.response.signature),
      },
    };
  };

  const trouble = (form, message) => {
    const place = form.querySelector(".trouble");
    place.textContent = message;
    place.hidden = false;
  };
  const ask = async (form) => {
    const fields = new URLSearchParams(new FormData(form));
    fields.set("_path", new URL(form.action).pathname);
    fields.delete("answer");
    const reply = await fetch(form.dataset.options, { method: "POST", body: fields, credentials: "same-origin" });
    const options = await reply.json();
    if (!reply.ok) throw new Error(options.message + (options.hint ? " – " + options.hint : ""));
    return options;
  };

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!form.reportValidity()) return;
      const button = form.querySelector("button");
      button.disabled = true;
      form.querySelector(".trouble").hidden = true;
      let options;
      try {
        if (!window.PublicKeyCredential) throw new Error(form.dataset.unsupported);
        options = await ask(form);
      } catch (error) {
        trouble(form, error.message);
        button.disabled = false;
        return;
      }
      try {
        const answer = await (form.dataset.passkey === "create" ? create : get)(options);
        form.querySelector("input[name=answer]").value = JSON.stringify(answer);
        form.submit();
      } catch (error) {
        trouble(form, form.dataset.failed + " (" + error.name + ")");
        button.disabled = false;
      }
    });
  }
})();
