//! Suggests what a machine may be missing, judged by its files and devices.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use sparkle::{DeviceInfo, DeviceKind};

/// Facts about the machine, apart from the devices.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Machine {
    /// Files that register drivers with EGL.
    pub egl_vendors: Vec<String>,
    /// `/dev/dri/renderD*`, and whether this user may open it.
    pub render_nodes: Vec<(String, bool)>,
    /// Whether the kernel driver of an NVIDIA GPU is loaded.
    pub nvidia: bool,
}

impl Machine {
    /// Examines this machine.
    pub fn look() -> Self {
        Machine {
            egl_vendors: ["/usr/share/glvnd/egl_vendor.d", "/etc/glvnd/egl_vendor.d"]
                .into_iter()
                .flat_map(names)
                .collect(),
            render_nodes: names("/dev/dri")
                .into_iter()
                .filter(|name| name.starts_with("renderD"))
                .map(|name| format!("/dev/dri/{name}"))
                .map(|path| (path.clone(), may_open(&path)))
                .collect(),
            nvidia: Path::new("/dev/nvidiactl").exists(),
        }
    }
}

/// The names in a directory; empty if it does not exist.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn may_open(path: &str) -> bool {
    let opened = fs::OpenOptions::new().read(true).write(true).open(path);
    !matches!(opened, Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

/// Suggestions that may make a GPU usable.
pub fn hints(devices: &[DeviceInfo], machine: &Machine) -> Vec<String> {
    let gl = || devices.iter().filter(|device| device.kind == DeviceKind::Gl);
    let hardware = gl().any(|device| device.unusable.is_none() && !device.software);
    let no_library =
        gl().any(|device| device.unusable.as_ref().is_some_and(|it| it.starts_with("no EGL library")));
    let mut hints = vec![];
    let mut hint = |applies: bool, text: String| hints.extend(applies.then_some(text));
    let closed: Vec<&str> =
        machine.render_nodes.iter().filter(|(_, open)| !open).map(|(path, _)| path.as_str()).collect();
    hint(
        !closed.is_empty(),
        format!(
            "You may not open {}: `sudo usermod -aG render $USER`, then log in again (in a container, add the device's group).",
            closed.join(", ")
        ),
    );
    if hardware {
        return hints;
    }
    hint(
        no_library,
        "No EGL library (libEGL.so.1) was found, so only the CPU can be used. Debian: `apt install libegl1 libgl1-mesa-dri` for AMD, \
         Intel and software GL; for NVIDIA, the vendor's driver with `libegl1`."
            .to_owned(),
    );
    hint(
        !no_library && machine.egl_vendors.is_empty(),
        "EGL is installed, but no driver is registered in /usr/share/glvnd/egl_vendor.d. Debian: `apt install libegl-mesa0 libgl1-mesa-dri`."
            .to_owned(),
    );
    hint(
        machine.nvidia && !machine.egl_vendors.iter().any(|name| name.contains("nvidia")),
        "An NVIDIA GPU is present, but its EGL driver is not registered (10_nvidia.json): install the driver's GL libraries (Debian: \
         `nvidia-egl-icd`); in a container, set NVIDIA_DRIVER_CAPABILITIES to `all`, or to include `graphics`."
            .to_owned(),
    );
    hint(
        machine.render_nodes.is_empty() && !machine.nvidia,
        "No GPU is visible: neither /dev/dri/renderD* nor /dev/nvidiactl exists. In a container, pass the GPU in \
         (`--device /dev/dri`, or `--gpus all`); otherwise the kernel driver is missing, or the machine has no GPU."
            .to_owned(),
    );
    hint(
        gl().any(|device| device.unusable.is_none()),
        "The only usable OpenGL is software: correct but slow. `auto` uses the CPU path instead.".to_owned(),
    );
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gl(software: bool, unusable: Option<&str>) -> DeviceInfo {
        let mut device = sparkle::devices().remove(0);
        device.id = unusable.is_none().then(|| "gl:0".into());
        device.kind = DeviceKind::Gl;
        device.name = "a GPU".into();
        device.software = software;
        device.unusable = unusable.map(str::to_owned);
        (device.architecture, device.names, device.facts) = (None, vec![], vec![]);
        device
    }

    fn good() -> Machine {
        Machine {
            egl_vendors: vec!["50_mesa.json".into()],
            render_nodes: vec![("/dev/dri/renderD128".into(), true)],
            nvidia: false,
        }
    }

    #[test]
    fn a_good_machine_needs_no_hint() {
        assert_eq!(hints(&[gl(false, None)], &good()), Vec::<String>::new());
    }

    #[test]
    fn each_missing_part_has_its_hint() {
        let only = |devices: &[DeviceInfo], machine: Machine, text: &str| {
            let hints = hints(devices, &machine);
            assert_eq!(hints.len(), 1, "{hints:?}");
            assert!(hints[0].contains(text), "{hints:?}");
        };
        let no_library = gl(false, Some("no EGL library: libEGL.so.1: cannot open shared object file"));
        only(&[no_library], Machine { egl_vendors: vec![], ..good() }, "apt install libegl1");
        only(&[], Machine { egl_vendors: vec![], ..good() }, "libegl-mesa0");
        only(&[], Machine { nvidia: true, ..good() }, "nvidia-egl-icd");
        only(&[], Machine { render_nodes: vec![], ..good() }, "No GPU is visible");
        only(&[gl(true, None)], good(), "software: correct but slow");
        let closed = Machine { render_nodes: vec![("/dev/dri/renderD128".into(), false)], ..good() };
        only(&[gl(false, None)], closed, "usermod -aG render");
    }
}
