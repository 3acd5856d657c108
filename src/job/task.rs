//! A task as the third original system's manager takes it, as a job of ours.
//!
//! Pure. Must hold: what we can't do is refused with a sentence that says so, and never left out in silence; what such
//! a task says that changes nothing here (`latent`, `metadata`) is ignored.

use serde_json::{Map, Value, json};

use crate::usage::Profile;

/// The keys of our own that a task may have; their forms are those of a job's message.
const OURS: [&str; 15] = [
    "input_file_cid",
    "output_path",
    "entrypoint",
    "gpus",
    "gpu_model",
    "min_vram_mib",
    "cpus",
    "memory_mib",
    "disk_mib",
    "shm_mib",
    "network",
    "sandbox",
    "timeout_s",
    "deadline",
    "priority",
];

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What it asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The message, without its id.
    pub message: Map<String, Value>,
    /// The id that it brings, if any.
    pub id: Option<String>,
    /// The node that shall run it.
    pub node: Option<String>,
    /// The pool, one node of which shall run it.
    pub pool: Option<String>,
    /// What is shown of it later. The variables are not: they may be secret.
    pub shown: Map<String, Value>,
}

/// Reads a task. `Err`: the sentence for who asked.
pub fn draft(task: &Map<String, Value>) -> Result<Draft, String> {
    refuse_what_is_not_there(task)?;
    let name = text(task, &["name", "function_name", "functionName"])?;
    let name = name.ok_or("missing identity name")?;
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("`name` has more than {NAME_BYTES_MAX} bytes"));
    }
    let image = text(task, &["image_url", "imageURL", "imageUrl"])?
        .ok_or("`image_url` is missing: it names the container image that runs")?;
    let image = ["docker://", "oci://"]
        .iter()
        .find_map(|scheme| image.strip_prefix(scheme))
        .unwrap_or(&image);
    let mut message = Map::new();
    message.insert("image_name".to_owned(), image.into());
    let command = command(task)?;
    if !command.is_empty() {
        message.insert("command".to_owned(), command.into());
    }
    for key in OURS {
        message.extend(known(task, key).map(|value| (key.to_owned(), value.clone())));
    }
    if let Some(inputs) = known(task, "inputs").filter(|inputs| are_files(inputs)) {
        message.insert("inputs".to_owned(), inputs.clone());
    }
    message.extend(known(task, "env").map(|env| ("env".to_owned(), env.clone())));
    let is_daemon = flag(task, "daemon")?;
    if is_daemon {
        message.insert("daemon".to_owned(), true.into());
    }
    let profile = known(task, "monitoring_profile").or_else(|| known(task, "monitoringProfile"));
    if let Some(profile) = profile {
        Profile::from_json(profile).map_err(|err| err.to_string())?;
        message.insert("monitoring_profile".to_owned(), profile.clone());
    }
    let mut shown = message.clone();
    shown.remove("env");
    shown.insert("name".to_owned(), name.into());
    let text = |key| text(task, &[key]);
    let (node, pool) = (text("proplet_id")?, text("pool")?);
    if node.is_some() && pool.is_some() {
        return Err("`proplet_id` and `pool` exclude each other".to_owned());
    }
    Ok(Draft { message, id: text("id")?, node, pool, shown })
}

/// `Err` if the task needs what there is not.
fn refuse_what_is_not_there(task: &Map<String, Value>) -> Result<(), String> {
    for (key, why) in [
        (
            "file",
            "`file` is a WebAssembly module, and nodes here run container images: put the module into an image and \
             name it in `image_url`",
        ),
        ("schedule", "`schedule` is not known here: send the task when it shall run"),
        ("depends_on", "`depends_on` is not known here: send the task when the others have ended"),
        ("workflow_id", "`workflow_id` is not known here: each task is a job by itself"),
        ("run_if", "`run_if` is not known here: each task is a job by itself"),
        ("broadcast", "`broadcast` is not known here: send the task once for each node"),
        ("encrypted", "`encrypted` images are not known here"),
        ("kbs_resource_path", "`kbs_resource_path` is not known here: images are not encrypted"),
        ("hal_storage_path", "`hal_storage_path` is not known here: inputs come from IPFS"),
    ] {
        if known(task, key).is_some_and(|value| *value != Value::Bool(false)) {
            return Err(why.to_owned());
        }
    }
    let word = |key: &str| task.get(key).and_then(Value::as_str).unwrap_or_default();
    if word("mode") == "train" || word("kind") == "federated" {
        return Err("federated training is not known here: each task is a job by itself".to_owned());
    }
    Ok(())
}

/// The value under a key; what Go writes for "nothing" is none.
fn known<'a>(task: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    task.get(key).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    })
}

fn text(task: &Map<String, Value>, keys: &[&str]) -> Result<Option<String>, String> {
    let Some((key, value)) = keys.iter().find_map(|key| Some((key, known(task, key)?))) else {
        return Ok(None);
    };
    let text = value.as_str().ok_or_else(|| format!("`{key}` is not a string"))?.trim();
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn flag(task: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match known(task, key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("`{key}` must be true or false")),
    }
}

/// `cli_args`, and after them `inputs` that are texts or numbers: what the program is called with.
fn command(task: &Map<String, Value>) -> Result<Vec<Value>, String> {
    let mut command = Vec::new();
    for key in ["cli_args", "inputs"] {
        let Some(items) = known(task, key) else { continue };
        if key == "inputs" && are_files(items) {
            continue;
        }
        let items = items.as_array().ok_or_else(|| format!("`{key}` is not an array"))?;
        for item in items {
            command.push(match item {
                Value::String(text) => json!(text),
                Value::Number(number) => json!(number.to_string()),
                _ => return Err(format!("`{key}` holds something else than strings and numbers")),
            });
        }
    }
    Ok(command)
}

/// Whether these inputs are files, as a job of ours names them.
fn are_files(inputs: &Value) -> bool {
    inputs.as_array().is_some_and(|items| items.iter().all(Value::is_object))
}

#[cfg(test)]
mod tests {
    use super::super::spec::parse;
    use super::*;

    fn read(task: &Value) -> Result<Draft, String> {
        draft(task.as_object().unwrap())
    }

    #[test]
    fn a_task_as_its_manager_takes_it_is_a_job_that_nodes_take() {
        let draft = read(&json!({
            "id": "", "name": "compute", "state": 0, "cli_args": ["run", "-x"], "file": "",
            "image_url": "docker://registry.example.com/compute:v1", "inputs": [7, "eight"],
            "daemon": false, "env": {"KEY": "secret"}, "proplet_id": "p", "encrypted": false,
            "monitoring_profile": {"enabled": true, "interval": 5_000_000_000_u64, "history_size": 5},
            "start_time": "0001-01-01T00:00:00Z", "gpus": 0,
        }))
        .unwrap();
        assert_eq!(
            (draft.node.as_deref(), draft.pool, draft.id.as_deref()),
            (Some("p"), None, None)
        );
        let mut message = draft.message;
        assert_eq!(message["command"], json!(["run", "-x", "7", "eight"]));
        message.insert("job_id".to_owned(), "j".into());
        let spec = parse(&serde_json::to_vec(&message).unwrap()).unwrap().spec;
        assert_eq!(spec.image, "registry.example.com/compute:v1");
        assert_eq!(spec.needs.monitoring.unwrap().interval.as_secs(), 5);
        assert_eq!((spec.env["KEY"].as_str(), spec.needs.gpus), ("secret", Some(0)));
        assert!(!Value::from(draft.shown).to_string().contains("secret"));
    }

    #[test]
    fn the_documents_own_spelling_is_understood() {
        let draft = read(&json!({
            "id": "550e8400-e29b-41d4-a716-446655440001", "functionName": "compute",
            "imageURL": "registry.example.com/compute:v1", "daemon": true,
            "monitoringProfile": {"enabled": true, "interval": 10},
        }))
        .unwrap();
        assert_eq!(draft.id.unwrap().len(), 36);
        assert_eq!(
            (&draft.shown["name"], &draft.message["daemon"]),
            (&"compute".into(), &true.into())
        );
        assert_eq!(draft.message["monitoring_profile"]["interval"], 10);
    }

    #[test]
    fn what_there_is_not_is_refused_in_a_sentence() {
        let with = |key: &str, value: Value| {
            let mut task = json!({"name": "n", "image_url": "i"});
            task[key] = value;
            read(&task).unwrap_err()
        };
        assert!(with("file", json!("AGFzbQ==")).contains("WebAssembly"));
        assert!(with("schedule", json!("* * * * *")).contains("`schedule`"));
        assert!(with("depends_on", json!(["a"])).contains("`depends_on`"));
        assert!(with("broadcast", json!(true)).contains("`broadcast`"));
        assert!(with("mode", json!("train")).contains("federated"));
        assert!(with("monitoring_profile", json!({"interval": 0})).contains("interval"));
        assert!(with("inputs", json!([[1]])).contains("`inputs`"));
        assert!(with("image_url", json!("")).contains("`image_url` is missing"));
        assert!(with("name", json!(null)).contains("missing identity name"));
        assert!(with("daemon", json!("yes")).contains("`daemon`"));
    }
}
