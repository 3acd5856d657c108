//! One answer: the values at a moment, in Prometheus's text format 0.0.4.
//!
//! Invariant: what is not known is left out.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{About, Family, Kind};

/// What the answer is, for its head.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The values of one moment.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<Family, Vec<Sample>>);

#[derive(Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Page {
    /// Adds a value of a family without labels; `None`: it is not known.
    pub fn put(&mut self, family: Family, value: impl Into<Option<f64>>) {
        self.put_of(family, &[], value);
    }

    /// Adds a value of a family; `labels`: the values of its labels in their order.
    pub fn put_of(&mut self, family: Family, labels: &[&str], value: impl Into<Option<f64>>) {
        let Some(value) = value.into() else { return };
        let names = family.about().labels;
        debug_assert_eq!(names.len(), labels.len(), "{family:?}");
        let labels = names.iter().copied().zip(labels.iter().map(|text| (*text).to_owned()));
        let sample = Sample { labels: labels.collect(), value };
        self.0.entry(family).or_default().push(sample);
    }

    /// Adds a value for each word of a closed list: 1 for those that hold, else 0.
    pub fn put_words<'a>(
        &mut self,
        family: Family,
        words: impl IntoIterator<Item = (&'a str, bool)>,
    ) {
        for (word, holds) in words {
            self.put_of(family, &[word], f64::from(u8::from(holds)));
        }
    }

    /// The text of the answer.
    pub fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (family, samples) in &self.0 {
            let About { name, kind, help, .. } = family.about();
            let of_type = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, of_type)?;
            for Sample { labels, value } in samples {
                if labels.is_empty() {
                    write(&mut metric, kind, *value)?;
                } else {
                    write(&mut metric.encode_family(labels)?, kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), fmt::Error> {
    match kind {
        Kind::Gauge => metric.encode_gauge(&value),
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_values_and_nothing_of_what_is_not_known() {
        let mut page = Page::default();
        page.put(Family::Slots, 3.0);
        page.put(Family::Balance, None);
        page.put_of(Family::GpuEnergy, &["GPU-1"], 1.5);
        page.put_of(Family::GpuEnergy, &["GPU-2"], 2e15);
        let text = page.into_text().unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        let expected = [
            "# TYPE lamda_slots gauge",
            "lamda_slots 3.0",
            "# TYPE lamda_gpu_energy_joules_total counter",
            "lamda_gpu_energy_joules_total{uuid=\"GPU-1\"} 1.5",
            "lamda_gpu_energy_joules_total{uuid=\"GPU-2\"} 2000000000000000.0",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_model_with_quotes_and_line_ends_stays_one_label() {
        let mut page = Page::default();
        page.put_of(Family::Gpu, &["GPU-1", "a\"b\\c\nlamda_slots 9"], 1.0);
        let text = page.into_text().unwrap();
        let last = text.lines().last().unwrap();
        let expected = r#"lamda_gpu_info{uuid="GPU-1",model="a\"b\\c\nlamda_slots 9"} 1.0"#;
        assert_eq!(last, expected);
    }

    #[test]
    fn words_of_a_closed_list_are_all_there() {
        let mut page = Page::default();
        page.put_words(Family::Unready, [("disk", true), ("nats", false)]);
        let text = page.into_text().unwrap();
        assert!(text.contains("lamda_node_unready{reason=\"disk\"} 1.0\n"), "{text}");
        assert!(text.contains("lamda_node_unready{reason=\"nats\"} 0.0\n"), "{text}");
    }
}
