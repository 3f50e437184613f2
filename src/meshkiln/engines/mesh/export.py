"""Stage `export`: a solid and its picture as the bytes of a mesh file. The same mesh gives the same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meshkiln.engines.base import Work
from meshkiln.engines.mesh import SIZE
from meshkiln.engines.mesh.texture import colours, paint

if TYPE_CHECKING:
    import trimesh

    from meshkiln.engines.base import Value

    Mesh = dict[str, NDArray[Any]]

ROUGHNESS = 0.75
"""A picture carries its own highlights: the material should add few."""

JPEG_QUALITY = 90

COMPRESSION = 4
"""Of zipped text: zlib's default, 6, takes half as long again over an OBJ and saves a fifteenth."""


def export(batch: Sequence[Work]) -> list[Value]:
    """The stage: a finished mesh and its cut-out `{"pixels"}` in, a file's bytes out. Parameters `format`, `size`."""
    values: list[Value] = []
    for work in batch:
        mesh, cutout = work.inputs
        write = WRITERS[str(work.parameters["format"])]
        values.append(write(mesh, cutout["pixels"], float(work.parameters.get("size", SIZE.default))))
    return values


def glb(mesh: Mesh, pixels: NDArray[np.uint8], size: float) -> bytes:
    """Binary glTF 2.0, Y up, in the mesh's own units: positions, normals, the picture as base colour."""
    import trimesh
    from trimesh.exchange import gltf
    from trimesh.visual import material

    texture, spots = paint(mesh["vertices"], mesh["uv_project"], pixels)
    encoded = _jpeg(texture)
    # trimesh would encode the texture itself, at a lower quality: it gets a stand-in, which is then replaced.
    stand_in = Image.new("RGB", (1, 1))
    stand_in.format = "JPEG"
    make: Any = material.PBRMaterial
    skin = make(name="picture", baseColorTexture=stand_in, metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    scene = trimesh.Scene()
    scene.add_geometry(_trimesh(mesh, _visual(spots, skin)), node_name="mesh", geom_name="mesh")

    def put_texture(items: dict[Any, bytes], tree: dict[str, Any]) -> None:
        view = tree["images"][0]["bufferView"]
        items[list(items)[view]] = encoded + b"\0" * (-len(encoded) % 4)
        tree["asset"]["generator"] = "meshkiln"

    def tell_use(tree: dict[str, Any]) -> None:
        [primitive] = tree["meshes"][0]["primitives"]
        for use, accessors in ((34962, primitive["attributes"].values()), (34963, [primitive["indices"]])):
            for index in accessors:
                tree["bufferViews"][tree["accessors"][index]["bufferView"]]["target"] = use

    write: Any = gltf.export_glb
    return bytes(write(scene, include_normals=True, buffer_postprocessor=put_texture, tree_postprocessor=tell_use))


def obj(mesh: Mesh, pixels: NDArray[np.uint8], size: float) -> bytes:
    """A zip of mesh.obj, mesh.mtl and mesh.jpg, Y up, in the mesh's own units."""
    from trimesh.exchange import obj as wavefront
    from trimesh.visual import material

    texture, spots = paint(mesh["vertices"], mesh["uv_project"], pixels)
    make: Any = material.SimpleMaterial
    body = _trimesh(mesh, _visual(spots, make(name="picture")))
    write: Any = wavefront.export_obj
    text, _ = write(body, include_normals=True, return_texture=True, digits=6, mtl_name="mesh.mtl", header="meshkiln")
    library = "newmtl picture\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd mesh.jpg\n"
    return _zip({"mesh.obj": text.encode(), "mesh.mtl": library.encode(), "mesh.jpg": _jpeg(texture)})


def ply(mesh: Mesh, pixels: NDArray[np.uint8], size: float) -> bytes:
    """Binary PLY with normals and vertex colours, Y up, in the mesh's own units."""
    import trimesh
    from trimesh.exchange.ply import export_ply

    texture, spots = paint(mesh["vertices"], mesh["uv_project"], pixels)
    opaque = np.full((len(spots), 1), 255, np.uint8)
    visual = trimesh.visual.ColorVisuals(vertex_colors=np.hstack([colours(texture, spots), opaque]))
    return bytes(export_ply(_trimesh(mesh, visual), vertex_normal=True, include_attributes=False))


def stl(mesh: Mesh, pixels: NDArray[np.uint8], size: float) -> bytes:
    """Binary STL for printing: see `printable`."""
    from trimesh.exchange.stl import export_stl

    return bytes(export_stl(_trimesh({**mesh, "vertices": printable(mesh["vertices"], size)})))


def threemf(mesh: Mesh, pixels: NDArray[np.uint8], size: float) -> bytes:
    """3MF core for printing: see `printable`. By hand, as trimesh puts random identifiers into its files."""
    points = printable(mesh["vertices"], size)
    vertices = "".join(f'<vertex x="{x:.6g}" y="{y:.6g}" z="{z:.6g}"/>' for x, y, z in points.tolist())
    triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in mesh["faces"].tolist())
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    package = "http://schemas.openxmlformats.org/package/2006"
    core = "http://schemas.microsoft.com/3dmanufacturing"
    model = (
        f'{head}<model unit="millimeter" xml:lang="en-US" xmlns="{core}/core/2015/02">'
        '<metadata name="Application">meshkiln</metadata>'
        f'<resources><object id="1" type="model"><mesh><vertices>{vertices}</vertices>'
        f'<triangles>{triangles}</triangles></mesh></object></resources><build><item objectid="1"/></build></model>\n'
    )
    types = (
        f'{head}<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>\n'
    )
    relations = (
        f'{head}<Relationships xmlns="{package}/relationships"><Relationship Target="/3D/3dmodel.model" Id="rel0" '
        f'Type="{core}/2013/01/3dmodel"/></Relationships>\n'
    )
    return _zip(
        {
            "[Content_Types].xml": types.encode(),
            "_rels/.rels": relations.encode(),
            "3D/3dmodel.model": model.encode(),
        }
    )


WRITERS: dict[str, Callable[[Mesh, NDArray[np.uint8], float], bytes]] = {
    "glb": glb,
    "obj": obj,
    "ply": ply,
    "stl": stl,
    "3mf": threemf,
}


def printable(vertices: NDArray[Any], size: float) -> NDArray[np.float32]:
    """Vertices as a printer wants them: Z up, the front towards −Y, standing on Z = 0 over the origin, millimetres.

    vertices : (V, 3) float, +Y up, the viewer at +Z
    size : longest side in millimetres
    """
    turned = vertices.astype(np.float64)[:, [0, 2, 1]] * (1, -1, 1)
    low, high = turned.min(axis=0), turned.max(axis=0)
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    scaled: NDArray[np.float32] = ((turned - foot) * (size / float((high - low).max()))).astype(np.float32)
    return scaled


def _trimesh(mesh: Mesh, visual: Any = None) -> trimesh.Trimesh:
    import trimesh

    return trimesh.Trimesh(mesh["vertices"], mesh["faces"], visual=visual, process=False, validate=False)


def _visual(spots: NDArray[np.float64], material: Any) -> Any:
    from trimesh import visual

    make: Any = visual.TextureVisuals
    # trimesh counts v from below.
    return make(uv=np.stack([spots[:, 0], 1 - spots[:, 1]], axis=1), material=material)


def _jpeg(texture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(texture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    """A zip archive whose bytes depend on names and contents alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            # The earliest date a zip can hold.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".jpg") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=COMPRESSION)
    return file.getvalue()
