//! Names of a device that do not change when devices are added or listed in another order.
//!
//! | name | from |
//! | --- | --- |
//! | `/dev/dri/renderD128` | EGL: the kernel's device files |
//! | `pci:0000:65:00.0` | the kernel: the device behind such a file |
//! | `uuid:GPU-...` | NVIDIA's kernel module: the GPU at that address |
//! | `cuda:0` | EGL of NVIDIA's driver: the number that CUDA uses |

use std::fs;
use std::path::Path;

/// The names of a device with these files and this number in CUDA, on the machine whose files are under `root`.
pub fn of_device(root: &Path, files: &[String], cuda: Option<isize>) -> Vec<String> {
    let mut names = files.to_vec();
    if let Some(address) = files.iter().find_map(|file| pci_address(root, file)) {
        let uuid = nvidia_uuid(root, &address);
        names.push(format!("pci:{address}"));
        names.extend(uuid.map(|uuid| format!("uuid:{uuid}")));
    }
    names.extend(cuda.map(|ordinal| format!("cuda:{ordinal}")));
    names
}

/// The PCI address of the device behind a file of the kernel's graphics subsystem.
fn pci_address(root: &Path, file: &str) -> Option<String> {
    let node = Path::new(file).file_name()?;
    let device = fs::canonicalize(root.join("sys/class/drm").join(node).join("device")).ok()?;
    let address = device.file_name()?.to_str()?;
    parse_pci(address).map(|_| address.to_owned())
}

/// The UUID of NVIDIA's GPU at a PCI address.
fn nvidia_uuid(root: &Path, address: &str) -> Option<String> {
    let folder = root.join("proc/driver/nvidia/gpus").join(address);
    let facts = fs::read_to_string(folder.join("information")).ok()?;
    let uuid = facts.lines().find_map(|line| line.strip_prefix("GPU UUID:"))?.trim();
    uuid.starts_with("GPU-").then(|| uuid.to_owned())
}

/// Domain, bus, device and function of a PCI address like `0000:65:00.0`. The domain may have any number of digits, or
/// be missing, which means 0.
fn parse_pci(address: &str) -> Option<[u32; 4]> {
    let (rest, function) = address.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let parsed = [number(domain)?, number(bus)?, number(device)?, number(function)?];
    parts.next().is_none().then_some(parsed)
}

/// Whether `selector` has the form of such a name.
pub fn is_name(selector: &str) -> bool {
    ["pci:", "uuid:", "cuda:", "/dev/"].iter().any(|prefix| selector.starts_with(prefix))
}

/// Whether `selector` means the device that has `name`: UUIDs in any case and without `GPU-`, PCI addresses with any
/// form of the domain.
pub fn means(selector: &str, name: &str) -> bool {
    if let (Some(selector), Some(name)) = (selector.strip_prefix("pci:"), name.strip_prefix("pci:")) {
        return parse_pci(selector).is_some_and(|address| parse_pci(name) == Some(address));
    }
    if let (Some(selector), Some(name)) = (selector.strip_prefix("uuid:"), name.strip_prefix("uuid:")) {
        let bare = |uuid: &str| uuid.to_ascii_lowercase().trim_start_matches("gpu-").to_owned();
        return bare(selector) == bare(name);
    }
    selector == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_kernels_files() {
        let root = tempfile::tempdir().unwrap();
        let (device, node) = ("sys/devices/pci0000:60/0000:65:00.0", "sys/class/drm/renderD128");
        let gpu = "proc/driver/nvidia/gpus/0000:65:00.0";
        for folder in [device, node, gpu] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let link = root.path().join(node).join("device");
        std::os::unix::fs::symlink(root.path().join(device), link).unwrap();
        let files = ["/dev/dri/card9".to_owned(), "/dev/dri/renderD128".to_owned()];
        let names = |cuda| of_device(root.path(), &files, cuda)[2..].to_vec();
        assert_eq!(names(None), ["pci:0000:65:00.0"]);
        let facts = "Model: \t A GPU\nGPU UUID: \t GPU-12ab-cd\nBus Type: \t PCIe\n";
        fs::write(root.path().join(gpu).join("information"), facts).unwrap();
        assert_eq!(names(Some(3)), ["pci:0000:65:00.0", "uuid:GPU-12ab-cd", "cuda:3"]);
        // Without such files, what EGL says is all.
        assert_eq!(of_device(root.path(), &[], None), Vec::<String>::new());
        assert_eq!(
            of_device(root.path(), &["/dev/dri/card1".to_owned()], Some(0)),
            ["/dev/dri/card1", "cuda:0"]
        );
    }

    #[test]
    fn a_selector_may_be_written_in_several_ways() {
        let same = [
            ("pci:65:00.0", "pci:0000:65:00.0"),
            ("pci:00000000:65:0.0", "pci:0000:65:00.0"),
            ("pci:0000:AF:00.0", "pci:0000:af:00.0"),
            ("uuid:12AB-cd", "uuid:GPU-12ab-cd"),
            ("cuda:1", "cuda:1"),
            ("/dev/dri/renderD128", "/dev/dri/renderD128"),
        ];
        assert!(same.iter().all(|(selector, name)| is_name(selector) && means(selector, name)));
        let different = [
            ("pci:65:00.1", "pci:0000:65:00.0"),
            ("pci:1:65:00.0", "pci:0000:65:00.0"),
            ("pci:", "pci:0000:65:00.0"),
            ("pci:x:y.z", "pci:x:y.z"),
            ("uuid:12ab", "uuid:GPU-12ab-cd"),
            ("cuda:1", "cuda:10"),
            ("cuda:0", "pci:0"),
        ];
        assert!(!different.iter().any(|(selector, name)| means(selector, name)));
        assert!(["auto", "cpu", "gl:0", "name=x", "multi"].iter().all(|it| !is_name(it)));
    }
}
