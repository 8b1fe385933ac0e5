//! placeholder
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LatencyRun {}
pub fn run(_: &crate::bench::Bench, _: &super::Sizes, _: &mut crate::report::Report) -> anyhow::Result<()> {
    Ok(())
}
