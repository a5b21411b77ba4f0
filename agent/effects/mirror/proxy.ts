/** The proxy for requests to a URL, by the variables that undici's `EnvHttpProxyAgent` reads; null for none. */
export function proxyFor(
  url: URL,
  env: Readonly<Record<string, string | undefined>> = process.env,
): URL | null {
  const http = env["http_proxy"] ?? env["HTTP_PROXY"];
  const https = env["https_proxy"] ?? env["HTTPS_PROXY"] ?? http;
  const proxy = url.protocol === "https:" ? https : http;
  if (proxy === undefined || proxy === "" || isExempt(url, env["no_proxy"] ?? env["NO_PROXY"])) {
    return null;
  }
  return URL.canParse(proxy) ? new URL(proxy) : null;
}

/** Whether NO_PROXY names a host: `example.org`, `.example.org`, `*.example.org`, each with a port, or `*`. */
function isExempt({ hostname, port, protocol }: URL, list = ""): boolean {
  if (list === "*") return true;
  const usual = protocol === "https:" ? "443" : "80";
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => {
      const [, name = entry, only] = /^(.+):(\d+)$/.exec(entry) ?? [];
      if (only !== undefined && only !== (port === "" ? usual : port)) return false;
      return /^[*.]/.test(name) ? hostname.endsWith(name.replace(/^\*/, "")) : hostname === name;
    });
}
