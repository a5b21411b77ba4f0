import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A server's certificate by an authority, as PEM files. */
export interface DatedCertificate {
  readonly cert: string;
  readonly key: string;
}

/** What a certificate is for, and when it is valid (`YYYYMMDDHHMMSSZ`). */
export interface CertificateRequest {
  readonly name: string;
  readonly from?: string;
  readonly to?: string;
}

/**
 * Has openssl issue a certificate of any dates, by the authority that `makeCertificates` made in
 * `directory` under the name `authority`.
 */
export function issueCertificate(
  directory: string,
  authority: string,
  { name, from = "20200101000000Z", to = "20990101000000Z" }: CertificateRequest,
): DatedCertificate {
  const home = join(directory, `ca-${name}-${from}-${to}`);
  mkdirSync(home);
  const path = (file: string): string => join(home, file);
  writeFileSync(path("index"), "");
  writeFileSync(path("serial"), "1000\n");
  writeFileSync(
    path("ca.conf"),
    `[ca]
default_ca = it
[it]
new_certs_dir = ${home}
database = ${path("index")}
serial = ${path("serial")}
default_md = sha256
policy = anything
copy_extensions = copy
unique_subject = no
[anything]
commonName = supplied
`,
  );
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { stdio: "ignore", cwd: home });
  };
  openssl(
    ...["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    ...["-keyout", path("key.pem"), "-out", path("request.pem"), "-subj", `/CN=${name}`],
    ...["-addext", `subjectAltName=DNS:${name}`],
  );
  openssl(
    ...["ca", "-batch", "-config", path("ca.conf"), "-notext"],
    ...["-cert", join(directory, `${authority}-ca.pem`)],
    ...["-keyfile", join(directory, `${authority}-ca-key.pem`)],
    ...["-startdate", from, "-enddate", to],
    ...["-in", path("request.pem"), "-out", path("cert.pem")],
  );
  return { cert: path("cert.pem"), key: path("key.pem") };
}
