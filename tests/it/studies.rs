//! Studies for the stories: registered by the operator of a development server, granted by people, asked in by researchers.
//! Not a test.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use schemas_identity::statement::{Study, sign};
use schemas_identity::{Body, SecretKey};

use crate::process::Server;
use crate::story::text;

/// A researcher in a study: its id and a token for it.
pub(crate) struct Member {
    pub(crate) study: String,
    pub(crate) token: String,
}

/// Registers a study of one new researcher, in the name of the operator that `--dev` made below `directory`.
pub(crate) fn member(server: &Server, directory: &Path, study: &str) -> Member {
    let (key, did) = server.key(&format!("{study}.pem"));
    let pem = std::fs::read_to_string(directory.join("data/keys/operator.pem")).expect("operator key");
    let operator = SecretKey::from_pem(&pem).expect("key");
    let mut checkpoint = ureq::get(format!("{}/log/checkpoint", server.url)).call().expect("checkpoint");
    let checkpoint = checkpoint.body_mut().read_to_string().expect("text");
    let origin = checkpoint.lines().next().expect("origin");
    let body = Body::Study(Study {
        study: study.to_owned(),
        title: study.to_owned(),
        members: vec![did.parse().expect("did")],
        purposes: Vec::new(),
        duo: Vec::new(),
        terms: Vec::new(),
        from: None,
        to: None,
    });
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs();
    let mut nonce = [0; 16];
    for (at, byte) in nonce.iter_mut().zip(study.bytes()) {
        *at = byte;
    }
    let compact = sign(&body, origin, i64::try_from(now_s).expect("time"), nonce, &operator);
    let answer = ureq::post(format!("{}/v1/statements", server.url))
        .header("content-type", "application/jose")
        .send(compact)
        .expect("taken");
    assert_eq!(answer.status().as_u16(), 201);
    let token = server.ok(&["token", "--key", &key, "--purpose", "HRESCH", "--study", study]);
    Member { study: study.to_owned(), token }
}

/// A person's grant to a study for research, with more arguments; its id.
pub(crate) fn grant(server: &Server, keys: &Path, person: &str, to: &Member, more: &[&str]) -> String {
    let key = text(&keys.join(format!("{person}.subject.pem")));
    let study = format!("study:{}", to.study);
    let mut arguments = vec!["consent", "grant", "--key", &key, "--to", &study, "--purpose", "HRESCH"];
    arguments.extend(more);
    server.ok(&arguments)
}

/// Takes everything back that a person granted.
pub(crate) fn revoke_all(server: &Server, keys: &Path, person: &str) {
    let key = text(&keys.join(format!("{person}.subject.pem")));
    server.ok(&["consent", "revoke", "--key", &key, "*"]);
}
