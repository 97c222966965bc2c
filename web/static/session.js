// The token that the gateway knows the visitor by. The tab keeps it, over
// reloads and no longer: neither other tabs nor later visits have it.

const key = "ferry-token";

let token = stored();

/** The token, or "" for a visitor without one. */
export const current = () => token;

/** @param {string} given "" to forget it */
export function keep(given) {
  token = given;
  try {
    if (given === "") sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, given);
  } catch {
    // The browser stores nothing: the token is gone with the next reload.
  }
}

function stored() {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}
